"""What is to happen once a change of the database is certain."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction

#: Marks our callbacks among those that wait for a commit, and connections that are watched.
_OURS = "_channelsq_after_commit"


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
    if any(_is_of_a_test(block) for block in connection.atomic_blocks):
        if _nothing_to_wait_for(connection):
            action()
            return
        _watch(connection)
    callback = functools.partial(action)
    setattr(callback, _OURS, True)
    transaction.on_commit(callback, using=using)


def _is_of_a_test(block: Any) -> bool:
    return bool(getattr(block, "_from_testcase", False))


def _nothing_to_wait_for(connection: Any) -> bool:
    """Whether a test's own blocks are the only ones open; those without a savepoint cannot fail alone."""
    return all(_is_of_a_test(block) or not block.savepoint for block in connection.atomic_blocks)


def _watch(connection: Any) -> None:
    """Have the end of every savepoint looked at, of blocks that are open already, too; only in tests."""
    if hasattr(connection, _OURS):
        return
    release = connection.savepoint_commit  # also called when one was rolled back

    @functools.wraps(release)
    def release_and_call(sid: str) -> None:
        release(sid)
        if connection.in_atomic_block and _nothing_to_wait_for(connection):
            _call_ours(connection)

    connection.savepoint_commit = release_and_call
    setattr(connection, _OURS, True)


def _call_ours(connection: Any) -> None:
    ours = [entry[1] for entry in connection.run_on_commit if hasattr(entry[1], _OURS)]
    connection.run_on_commit = [entry for entry in connection.run_on_commit if not hasattr(entry[1], _OURS)]
    for callback in ours:
        callback()
