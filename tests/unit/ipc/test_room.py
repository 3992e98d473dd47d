"""The space that a site's file keeps for acknowledgements."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.ipc import room as module
from channelsq.ipc.database import Database
from channelsq.ipc.directory import make_private
from channelsq.ipc.room import Room, full, is_full


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(tmp_path / "queues.sqlite3", isolation_level=None)
    made.execute("PRAGMA journal_mode = WAL")
    made.execute("CREATE TABLE padding (content)")
    yield made
    made.close()


@pytest.fixture
def room(tmp_path: Path, connection: sqlite3.Connection) -> Iterator[Room]:
    guard = os.open(tmp_path, os.O_RDONLY)
    made = Room(tmp_path / "queues.sqlite3", guard)
    os.close(guard)
    yield made
    made.close()


def test_the_log_and_the_reserve_have_their_space_from_the_beginning(
    tmp_path: Path, connection: sqlite3.Connection, room: Room
) -> None:
    room.measure(connection)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 16 * 4096
    log = (tmp_path / "queues.sqlite3-wal").stat()
    assert log.st_blocks * 512 >= log.st_size > (tmp_path / "reserve").stat().st_size
    connection.execute("INSERT INTO padding VALUES (zeroblob(100000))")
    assert connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sends_end_before_other_writes_do(
    connection: sqlite3.Connection, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 400 * 4096)
    assert room.measure(connection)
    room.check(connection)
    connection.execute("INSERT INTO padding VALUES (zeroblob(1200000))")
    with pytest.raises(sqlite3.OperationalError, match="full") as sent:
        room.check(connection)
    assert is_full(sent.value)
    connection.execute("INSERT INTO padding VALUES (zeroblob(100000))")  # in what is kept for acknowledgements
    with pytest.raises(sqlite3.OperationalError, match="full") as written:  # SQLite's own
        connection.execute("INSERT INTO padding VALUES (zeroblob(900000))")
    assert is_full(written.value)
    assert not room.relieve(connection)  # there is no more room, and the file system is not what is full
    connection.execute("DELETE FROM padding")
    room.check(connection)
    monkeypatch.setattr(module, "LARGEST", 1000 * 4096)
    assert room.relieve(connection)


def test_other_errors_are_not_of_a_full_file() -> None:
    assert is_full(full())
    assert not is_full(sqlite3.OperationalError("no such table: nowhere"))


def test_the_last_process_removes_the_reserve(tmp_path: Path) -> None:
    directory = make_private(tmp_path / "ipc")
    first, second = Database(directory), Database(directory)
    first.open()
    second.open()
    first.close()
    assert (directory / "reserve").exists()
    second.close()
    assert not (directory / "reserve").exists()
