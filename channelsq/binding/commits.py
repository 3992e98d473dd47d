"""What is to happen once a change of the database is certain."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.db.transaction import Atomic

#: Marks our callbacks among those that wait for a commit.
_OURS = "channelsq_after_commit"


def after_commit(using: str, action: Callable[[], None]) -> None:
    """Call ``action`` when the transaction that is open on a database is committed, at once if there is none.

    A Django ``TestCase`` keeps a transaction of its own open and never commits it.  Within one, a commit is the end
    of the outermost ``atomic`` block of the code under test.

    Args:
        using: the database's alias.
        action: is not called if the transaction, or its savepoint, is rolled back.
    """
    connection: Any = connections[using]
    if not connection.in_atomic_block:
        # Also with autocommit off: when such a transaction ends, nobody is told.
        action()
        return
    if _in_test(connection):
        if _all_of_the_test(connection):
            action()
            return
        watch_atomic_blocks()
    callback = functools.partial(action)
    setattr(callback, _OURS, True)
    transaction.on_commit(callback, using=using)


def _in_test(connection: Any) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _all_of_the_test(connection: Any) -> bool:
    return all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


@functools.cache
def watch_atomic_blocks() -> None:
    """Have the end of every ``atomic`` block looked at that begins from now on; only in processes that run tests."""
    leave = Atomic.__exit__

    @functools.wraps(leave)
    def leave_and_call(block: Atomic, *error: Any) -> Any:
        result = leave(block, *error)
        connection: Any = connections[block.using or "default"]
        # A test's own blocks end with everything rolled back.
        if connection.in_atomic_block and not getattr(block, "_from_testcase", False) and _all_of_the_test(connection):
            _call_ours(connection)
        return result

    Atomic.__exit__ = leave_and_call  # type: ignore[method-assign]


def _call_ours(connection: Any) -> None:
    ours = [entry[1] for entry in connection.run_on_commit if hasattr(entry[1], _OURS)]
    connection.run_on_commit = [entry for entry in connection.run_on_commit if not hasattr(entry[1], _OURS)]
    for callback in ours:
        callback()
