"""The living processes that share a directory; the kernel knows them, however they end.

Each process locks one byte of a common file, at a random offset that is its number here.  A lock ends with its
process, also if that is killed.  (POSIX record locks: a forked child has none of its parent's.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from pathlib import Path


class Owners:
    """The registration of this process among the others.

    There must be only one for a file in a process, and it is never closed: a process that closes any descriptor of the
    file loses all its locks on it.

    Args:
        path: the file; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        #: The number of this process.
        self.me = 0
        while not self.me:
            number = secrets.randbelow(2**62) + 1
            if self._lock(number):
                self.me = number

    def is_alive(self, number: int) -> bool:
        """Return whether the process with this number is alive."""
        if number == self.me:
            return True
        if not self._lock(number):
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
        return False

    def _lock(self, number: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True
