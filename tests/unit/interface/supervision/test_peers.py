"""Processes that serve together tell each other what they know."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.interface.supervision.peers import Peers


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:  # a short path, as a Unix socket's must be
        yield Path(made)


def test_each_is_told_by_all_others(folder: Path) -> None:
    async def use() -> None:
        peers = [Peers(number, folder) for number in (1, 2, 3)]
        for each in peers:
            await each.join(lambda number=each.number: b"%d" % number * 200_000)  # type: ignore[misc]
        assert await peers[1].ask(5) == {1: b"1" * 200_000, 3: b"3" * 200_000}
        peers[2].leave()
        assert await peers[1].ask(5) == {1: b"1" * 200_000}
        for each in peers:
            each.leave()

    asyncio.run(use())


def test_a_successor_is_asked_instead_of_its_predecessor(folder: Path) -> None:
    async def use() -> None:
        asking, old, new = Peers(1, folder), Peers(2, folder), Peers(2, folder)
        await old.join(lambda: b"old")
        assert await asking.ask(5) == {2: b"old"}
        await new.join(lambda: b"new")
        old.leave()
        assert await asking.ask(5) == {2: b"new"}
        assert [each.name for each in folder.iterdir()] == ["metrics-2"]
        new.leave()

    asyncio.run(use())


def test_who_is_dead_or_hangs_is_left_out(folder: Path) -> None:
    async def use() -> None:
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(folder / "metrics-2"))
        dead.close()
        with socket.socket(socket.AF_UNIX) as hanging:
            hanging.bind(str(folder / "metrics-3"))
            hanging.listen()
            alive = Peers(4, folder)
            await alive.join(lambda: b"here")
            begun = asyncio.get_running_loop().time()
            assert await Peers(1, folder).ask(0.2) == {4: b"here"}
            assert asyncio.get_running_loop().time() - begun < 5
            alive.leave()

    asyncio.run(use())


def test_a_folder_with_too_long_a_path_is_a_line_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use() -> None:
        deep = folder / ("x" * 120)
        deep.mkdir()
        peers = Peers(1, deep)
        await peers.join(lambda: b"")
        assert await peers.ask(1) == {}
        peers.leave()

    asyncio.run(use())
    (record,) = caplog.records
    assert record.__dict__["action"] == "no_peers"
