"""Space on the file system for the messages that were accepted: it must be possible to read and to acknowledge them.

Every write to the file, also a deletion, takes space in SQLite's write-ahead log until a checkpoint copies the log into
the file.  If nothing were kept for this, a full file system would stop the consumers that could empty the queues.  So

- sends stop before the file system is full: :meth:`Room.check`;
- the log has its space from the beginning;
- if another program fills the file system, a checkpoint gets the space of the file ``reserve``, which is made again
  when there is room.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

#: The most bytes of the file.  When it is full, sends fail with an error.
LARGEST = 512 * 2**20

_PAGE = 4096

#: The length of the log, in pages, from which a commit copies it into the file: usually, and when space is short.
_CHECKPOINT, _CHECKPOINT_SOON = 2000, 128

#: The pages of the log and of the reserve that are kept, at most, and the share of a small file system.
_KEPT, _SHARE = 512, 16

#: Free bytes below which space is short.
_SHORT = 64 * 2**20


class Room:
    """The space of one connection's file.

    Args:
        path: the file.
        guard: a descriptor of its directory, which is open until this method returns.
    """

    def __init__(self, path: Path, guard: int) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._reserve = os.open("reserve", flags, 0o600, dir_fd=guard)
        found = os.fstatvfs(self._reserve)
        self._kept = max(16, min(_KEPT, found.f_blocks * found.f_frsize // _SHARE // _PAGE))
        #: The pages up to which messages may be sent, and the pages beyond for acknowledgements.
        self._limit = 0
        self._beyond = min(self._kept // 2, LARGEST // _PAGE // 8)
        self._is_short = False

    def close(self) -> None:
        """Close the reserve; delete it after the last connection, which has deleted the log."""
        os.close(self._reserve)
        with contextlib.suppress(OSError):
            if not self._log.exists():
                self._path.with_name("reserve").unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """The free bytes on the file system."""
        found = os.fstatvfs(self._reserve)
        return found.f_bavail * found.f_frsize

    # -- limits

    def measure(self, connection: sqlite3.Connection) -> bool:
        """Set the limits by the space that is free now; return whether there is more than before.

        Args:
            connection: outside of transactions.
        """
        self._keep()
        free, before = self.free, self._limit
        kept = self._missing() + (self._beyond + 16) * _PAGE
        # Pages that are only in the log will need space in the file.
        possible = (self._path.stat().st_size + max(0, free - kept)) // _PAGE
        self._limit = min(LARGEST // _PAGE - self._beyond, possible)
        connection.execute(f"PRAGMA max_page_count = {self._limit + self._beyond}")
        is_short = free < _SHORT
        if is_short != self._is_short or not before:
            self._is_short = is_short
            length = min(self._kept, _CHECKPOINT_SOON) if is_short else _CHECKPOINT
            connection.execute(f"PRAGMA wal_autocheckpoint = {length}")
            if is_short:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return self._limit > before

    def check(self, connection: sqlite3.Connection) -> None:
        """Check, in a transaction, that messages may be added.

        Raises:
            sqlite3.OperationalError: they may not, because the file or the file system is full (``SQLITE_FULL``).
        """
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        if pages < self._limit:
            return
        (unused,) = connection.execute("PRAGMA freelist_count").fetchone()
        if pages - unused >= self._limit:
            raise full()

    def relieve(self, connection: sqlite3.Connection) -> bool:
        """Make room after a write that failed, outside of transactions; return whether it should be tried again."""
        if self.measure(connection):
            return True
        if self.free >= 16 * _PAGE or self._missing():
            return False
        os.ftruncate(self._reserve, 0)
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        self.measure(connection)
        return not busy

    # -- the reserve and the log

    def _missing(self) -> int:
        """Return the bytes that the reserve lacks."""
        return max(0, self._kept * _PAGE - os.fstat(self._reserve).st_size)

    def _keep(self) -> None:
        """Make the reserve and the space of the log, as far as there is room."""
        with contextlib.suppress(OSError):  # no room: later
            if self._missing() and self.free > 2 * self._kept * _PAGE:
                os.posix_fallocate(self._reserve, 0, self._kept * _PAGE)
        wanted = (self._kept + self._beyond) * _PAGE
        with contextlib.suppress(OSError):
            if self._log.stat().st_size < wanted:
                file = os.open(self._log, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.posix_fallocate(file, 0, wanted)
                finally:
                    os.close(file)


def full() -> sqlite3.OperationalError:
    """Return SQLite's error for a full file."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
    return error


def is_full(error: sqlite3.Error) -> bool:
    """Return whether there was no room for a write."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_FULL
