"""A connection to the SQLite file that the processes of a site share: opened, read, and written to.

SQLite's write-ahead log lets many processes read while one writes.  Its locks are the kernel's: a killed process
leaves no lock behind, and no part of an uncommitted transaction.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TypeVar

from channelsq.ipc.directory import is_temporary, open_private
from channelsq.ipc.room import Room, is_full
from channelsq.version import __version__

logger = logging.getLogger("channelsq.ipc")

#: The version of the file's tables.
VERSION = 3

#: Seconds that a process waits for another one's transaction.
BUSY_TIMEOUT = 10.0

#: The seconds between two attempts to begin a transaction: the first, and the longest.
_PAUSES = 0.00005, 0.002

_SCHEMA = resources.files("channelsq.ipc").joinpath("schema.sql").read_text(encoding="utf-8")

_Result = TypeVar("_Result")


class Database:
    """One connection to a site's file.  Not thread-safe.

    Args:
        directory: the site's directory, see :func:`channelsq.ipc.directory.make_private`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connection: sqlite3.Connection | None = None
        self._room: Room | None = None
        self._inode = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / "queues.sqlite3"

    @property
    def is_open(self) -> bool:
        """True if there is a connection."""
        return self._connection is not None

    def open(self) -> sqlite3.Connection:
        """Return the connection; open it if there is none; raise errors of SQLite and the system."""
        if self._connection is None:
            guard = open_private(self.directory)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                opening = os.open("opening", flags, 0o600, dir_fd=guard)
                try:
                    # One process after the other: SQLite answers "locked" to concurrent changes of the journal mode.
                    fcntl.flock(opening, fcntl.LOCK_EX)
                    connection = self._connect(guard)
                    try:
                        self._room = Room(self.path, guard)
                        self._room.measure(connection)
                    except BaseException:
                        connection.close()
                        self._close_room()
                        raise
                    self._connection = connection
                finally:
                    os.close(opening)
            finally:
                os.close(guard)
        return self._connection

    def _connect(self, guard: int) -> sqlite3.Connection:
        connection = self._opened_anew(guard) if is_temporary(self.directory) else self._opened(guard, "NORMAL")
        try:
            self._set_up(connection)
            found = os.stat(self.path.name, dir_fd=guard, follow_symlinks=False)
            if not os.path.samestat(found, self.path.stat()):
                raise sqlite3.OperationalError(f"{self.directory} was replaced while its file was opened")
            self._inode = found.st_ino
        except BaseException:
            connection.close()
            raise
        return connection

    def _opened_anew(self, guard: int) -> sqlite3.Connection:
        """Return a connection without waits for the disk; delete a file from before the machine's restart first."""
        try:
            connection = self._opened(guard, "OFF")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
        else:
            if not self._is_of_another_boot(connection):
                return connection
            connection.close()
        logger.warning(
            "%s is of before the machine's last start, and is begun anew", self.path, extra={"action": "ipc_file_begun"}
        )
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return self._opened(guard, "OFF")

    def _opened(self, guard: int, synchronous: str) -> sqlite3.Connection:
        _create(guard, self.path.name)
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # With NORMAL a power failure can cost the last messages, with OFF the whole file.
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            # Some systems' default overwrites every deleted page, which would take space in the log.
            connection.execute("PRAGMA secure_delete = FAST")
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _is_of_another_boot(connection: sqlite3.Connection) -> bool:
        if _version(connection) != VERSION:
            return False
        found = connection.execute("SELECT boot FROM begun_in").fetchone()
        return found is not None and found[0] != _boot()

    def _set_up(self, connection: sqlite3.Connection) -> None:
        version = _version(connection)
        if not version:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION};")
            connection.execute("INSERT INTO begun_in VALUES (?)", (_boot(),))
            connection.execute("COMMIT")
        elif version != VERSION:
            raise sqlite3.OperationalError(
                f"{self.path} has tables of version {version}, and channelsq {__version__} in this process reads "
                f"version {VERSION}: update whichever is older, or stop the site's processes and delete the file"
            )
        connection.execute("PRAGMA busy_timeout = 0")  # SQLite's own pauses are long

    def close(self) -> None:
        """Close the connection; it is opened again at the next use."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._close_room()

    def _close_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.close()

    @property
    def is_gone(self) -> bool:
        """True if the open file was deleted or replaced, for example by a program that cleans up temporary files."""
        if self._connection is None:
            return False
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def measure(self) -> None:
        """Adapt to the free space on the file system; to be called regularly."""
        connection = self.open()
        assert self._room is not None
        self._room.measure(connection)

    def check_room(self, connection: sqlite3.Connection) -> None:
        """Check, in a transaction, that messages may be added; see :meth:`Room.check`."""
        assert self._room is not None
        self._room.check(connection)

    # -- transactions -----------------------------------------------------------------------

    def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return the result of ``work(connection)``, which reads and may be called again."""
        connection = self.open()
        return _patiently(lambda: work(connection), BUSY_TIMEOUT)

    def write(self, work: Callable[[sqlite3.Connection], _Result], seconds: float = BUSY_TIMEOUT) -> _Result:
        """Return the result of ``work(connection)``, which runs in a transaction.

        Args:
            work: writes, and may be called again; its changes are rolled back if it raises.
            seconds: how long to wait for another process's transaction.

        Raises:
            sqlite3.OperationalError: another process is still writing (``SQLITE_BUSY``), or the file or its file
                system is full (``SQLITE_FULL``).
        """
        connection = self.open()
        try:
            return self._transaction(connection, work, seconds)
        except sqlite3.OperationalError as error:
            if not is_full(error) or self._room is None or not self._room.relieve(connection):
                raise
        return self._transaction(connection, work, seconds)

    @staticmethod
    def _transaction(
        connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _Result], seconds: float
    ) -> _Result:
        _patiently(lambda: connection.execute("BEGIN IMMEDIATE"), seconds)
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself has ended the transaction if the file is full
                connection.execute("ROLLBACK")
            raise
        return result


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process was writing."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def _patiently(call: Callable[[], _Result], seconds: float) -> _Result:
    try:
        return call()
    except sqlite3.OperationalError as error:
        if not is_busy(error) or not seconds:
            raise
    until, (pause, longest) = time.monotonic() + seconds, _PAUSES
    while True:
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > until:
                raise


def _create(guard: int, name: str) -> None:
    """Create the file for its user alone, unless it exists.

    An existing file is not opened: closing it would end SQLite's locks on it in this process.
    """
    try:
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=guard))
    except FileExistsError:
        return


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _boot() -> str:
    """Return the id of this boot of the machine; empty if the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
