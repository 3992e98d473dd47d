"""The SQLite file that the processes of a site share: opened, locked, and waited on.

SQLite's write-ahead log lets many read while one writes; its locks are the kernel's, so that a process that is
killed leaves none behind, and what it had half written is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from channelsq.ipc.directory import make_private
from channelsq.ipc.owners import Owners
from channelsq.ipc.wake_ups import WakeUps
from channelsq.version import __version__

logger = logging.getLogger("channelsq.ipc")

#: The version of the file's tables.
VERSION = 1

#: Seconds that a process waits for another one's write.
BUSY_TIMEOUT = 10.0

#: Seconds after which a process looks for messages though nobody woke it.
LOOK_EVERY = 0.5

_SCHEMA, _ADDITIONS = (
    resources.files("channelsq.ipc").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    for name in ("schema", "additions")
)


class SharedFile:
    """One site's file, as this process sees it; safe to call from any thread.

    Args:
        directory: as :func:`channelsq.ipc.directory.make_private` gives it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._wakes = 0
        self._connection: sqlite3.Connection | None = None
        self._owners: Owners | None = None
        self._inode = 0
        self._guard = -1
        self._bells: WakeUps | None = None

    # -- the file ---------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The database."""
        return self.directory / "queues.sqlite3"

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            make_private(self.directory)
            # One process after the other: SQLite answers "locked" to who changes the journal beside another.
            opening = os.open(self.directory / "opening", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(opening, fcntl.LOCK_EX)
                self._connection = self._connect()
            finally:
                os.close(opening)
            if self._owners is None:
                self._owners = Owners(self.directory / "owners")
            # systemd-tmpfiles leaves a directory alone that somebody has locked so.
            self._guard = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._guard, fcntl.LOCK_SH)
            self._bells = WakeUps(self.directory, self._owners.me, self.wake)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(self.path, 0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            # Enough for everything but a power failure, after which it may lack the last messages.
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if not version:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version != VERSION:
                raise sqlite3.OperationalError(
                    f"{self.path} has tables of version {version}, and channelsq {__version__} in this process reads "
                    f"version {VERSION}: update whichever is older, or stop the site's processes and delete the file"
                )
            connection.executescript(f"BEGIN IMMEDIATE; {_ADDITIONS} COMMIT;")
        except BaseException:
            connection.close()
            raise
        self._inode = self.path.stat().st_ino
        return connection

    def close(self) -> None:
        """Give back the file; it is opened again when it is needed."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            bells, self._bells = self._bells, None
            if self._guard >= 0:
                os.close(self._guard)
                self._guard = -1
        if bells is not None:
            bells.close()
        self.wake()

    @property
    def _me(self) -> int:
        self._open()
        assert self._owners is not None
        return self._owners.me

    def _is_alive(self, number: int) -> bool:
        """Whether the process with this number lives."""
        assert self._owners is not None
        return self._owners.is_alive(number)

    def _begin_anew_if_gone(self) -> bool:
        """Who cleans up temporary files may have deleted this one: then a new one is begun, with the others.

        Gives whether that was so.
        """
        try:
            there = self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            there = False
        if self._connection is None or there:
            return False
        logger.error(
            "%s was deleted or replaced, with every message in it; going on with a new one",
            self.path,
            extra={"action": "ipc_file_lost"},
        )
        self.close()
        self._owners = None
        return True

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._open()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    # -- waiting ----------------------------------------------------------------------------

    @property
    def mark(self) -> int:
        """What :meth:`wait` is given: taken before the look that found nothing, so that no wake is missed."""
        return self._wakes

    def wake(self) -> None:
        """Wake who waits in this process."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def _tell(self) -> None:
        """Wake who waits, in every process."""
        self.wake()
        with self._lock:
            self._open()
            assert self._bells is not None
            self._bells.ring()

    def wait(self, mark: int, seconds: float, pause: float) -> None:
        """Wait for a change that came after ``mark``.

        Args:
            mark: see :attr:`mark`.
            seconds: at most this long.
            pause: at most this long where other processes cannot wake this one.
        """
        with self._lock:
            self._open()
            assert self._bells is not None
            hears = self._bells.hang()
        with self._changed:
            if self._wakes == mark:
                self._changed.wait(min(seconds, LOOK_EVERY if hears else pause))
