"""Errors of SQLite and the system as BrokerUnavailable with a remedy."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from channelsq.exceptions import BrokerUnavailable
from channelsq.ipc.database import BUSY_TIMEOUT
from channelsq.ipc.room import LARGEST

#: The exceptions of a store whose file cannot be used.
ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, OSError)

#: Free bytes on the file system below which an error of the system means a lack of space.
_ROOM = 2**20


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn the store's exceptions in the block into BrokerUnavailable.

    Args:
        path: the file.
    """
    try:
        yield
    except ERRORS as error:
        if isinstance(error, BrokerUnavailable):
            raise
        raise unavailable(path, error) from error


def unavailable(path: Path, error: Exception) -> BrokerUnavailable:
    """Return the error that describes the problem with the file at ``path``, and the remedy."""
    return BrokerUnavailable(str(path), error, _remedy(path, error))


def _remedy(path: Path, error: Exception) -> str:
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    free = _free(path)
    if code == sqlite3.SQLITE_FULL or (free is not None and free < _ROOM):
        where = "" if free is None else f" ({free // 2**20} MB are free there)"
        return (
            f"make room on the file system of {path.parent}{where} or choose another with "
            "CHANNEL_LAYERS['default']['CONFIG']['path'], and have workers read what waits: the file may take "
            f"{LARGEST // 2**20} MB"
        )
    if code == sqlite3.SQLITE_BUSY:
        return f"another process has been writing for {BUSY_TIMEOUT:g} s: look for one that is stopped, and end it"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "stop the site's processes and delete the file"
    return "give the directory to the user that runs the site's processes"


def _free(path: Path) -> int | None:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
