"""Django's open transactions as a database connection keeps them: ``atomic`` blocks, savepoints, calls on commit.

Private parts of Django; ``tests/unit/delivery/test_commits.py`` and
``tests/unit/delivery/test_commits_of_databases.py`` pin them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

#: Marks connections whose savepoints are observed.
_WATCHED = "_channelsq_watched"


def is_of_testcase(block: Any) -> bool:
    """Return whether an ``atomic`` block is one that Django's ``TestCase`` keeps around a test."""
    return bool(getattr(block, "_from_testcase", False))


def open_blocks(connection: Any) -> list[Any]:
    """Return the ``atomic`` blocks that are open on a connection, outermost first."""
    blocks: list[Any] = connection.atomic_blocks
    return blocks


def has_savepoint(block: Any) -> bool:
    """Return whether an ``atomic`` block can be rolled back alone."""
    return bool(block.savepoint)


def ends_with_commit(connection: Any) -> bool:
    """Return whether the outermost ``atomic`` block that is open on a connection commits at its end."""
    return bool(connection.commit_on_exit)


def savepoints(connection: Any) -> tuple[str | None, ...]:
    """Return the names of the savepoints that are open on a connection."""
    return tuple(connection.savepoint_ids)


def calls_on_commit(connection: Any, kind: type) -> Iterator[Any]:
    """Return the functions of class ``kind`` that a connection calls after its commit, in order."""
    return (function for _, function, *_ in connection.run_on_commit if type(function) is kind)


def call_on_commit(connection: Any, function: Callable[[], None]) -> None:
    """Register ``function`` for a call after a connection's commit.

    As ``transaction.on_commit(function, robust=True)``, but in place of the set of savepoints that Django looks into
    when one is rolled back there is ``function`` itself: its ``__contains__`` is asked.
    """
    connection.run_on_commit.append((function, function, True))


def take_calls_on_commit(connection: Any, kind: type) -> list[Any]:
    """Remove the functions of class ``kind`` that a connection would call after its commit, and return them."""
    ours = list(calls_on_commit(connection, kind))
    connection.run_on_commit = [entry for entry in connection.run_on_commit if type(entry[1]) is not kind]
    return ours


def watch_savepoints(connection: Any, ended: Callable[[Any], None]) -> None:
    """Call ``ended(connection)`` at the end of every savepoint, also of blocks that are already open.

    Django releases a savepoint that was rolled back, too.  Further calls change nothing.
    """
    if hasattr(connection, _WATCHED):
        return
    release = connection.savepoint_commit

    @functools.wraps(release)
    def release_and_call(sid: str) -> None:
        release(sid)
        ended(connection)

    connection.savepoint_commit = release_and_call
    setattr(connection, _WATCHED, True)
