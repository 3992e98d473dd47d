"""Waits for the commit of the database transactions of a thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created

from channelsq.delivery import django_transaction_internals as transaction

#: Marks ``atomic`` blocks of a test or of another caller: sends do not wait for their end.
_OUTSIDE = "_channelsq_outside"


class _Thread(threading.local):
    """The state of a thread."""

    #: The database connections that it has opened; None before the first lookup.
    opened: list[weakref.ref[Any]] | None = None


_here = _Thread()


def _first_look() -> list[weakref.ref[Any]]:
    """Record the connections of this thread, with those lent by another thread; a signal reports later ones."""
    try:
        known = connections.all(initialized_only=True)
    except ImproperlyConfigured:  # there are no settings, so there is no connection
        known = []
    _here.opened = [weakref.ref(connection) for connection in known]
    return _here.opened


def _note_opened(connection: Any, **kwargs: Any) -> None:
    if _here.opened is not None:
        others = [ref for ref in _here.opened if ref() not in (None, connection)]
        _here.opened = [*others, weakref.ref(connection)]


connection_created.connect(_note_opened, dispatch_uid=__name__)


class Waiting(Protocol):
    """A thing that waits for one or several transactions."""

    #: How many of them are not committed yet.
    transactions: int


W = TypeVar("W", bound=Waiting)


def transactions() -> Sequence[Any]:
    """Return this thread's connections with a transaction that a send must wait for."""
    opened = _here.opened
    if not opened:  # in most consumers
        if opened is not None:
            return ()
        opened = _first_look()
    return [connection for ref in opened if (connection := ref()) is not None and is_waited_for(connection)]


def is_waited_for(connection: Any) -> bool:
    """Return whether a transaction is open on ``connection`` whose commit or rollback will be reported.

    A Django ``TestCase`` never commits its transaction, nor does a consumer in a test commit the test's blocks; and
    Django does not report the end of a transaction that began with autocommit off.  Within these, a commit is the end
    of the outermost ``atomic`` block with a savepoint.
    """
    if not connection.in_atomic_block:
        return False
    if transaction.ends_with_commit(connection) and not any(map(_is_outside, transaction.open_blocks(connection))):
        return True
    if _is_outermost(connection):
        return False
    transaction.watch_savepoints(connection, _savepoint_ended)
    return True


def wait(connection: Any, waiting: W, release: Callable[[list[W]], None]) -> None:
    """Release ``waiting`` when the transaction that is open on ``connection`` is committed.

    It is dropped if the transaction, or a savepoint that is open now, is rolled back.

    Args:
        connection: a connection for which :func:`is_waited_for` is true.
        waiting: may wait for other connections, too; it is released after the last commit.
        release: called once for each commit, with everything that waited for it, in order.
    """
    waiting.transactions += 1
    batch = next(transaction.calls_on_commit(connection, _Batch), None)
    if batch is None:
        batch = _Batch(release)
        transaction.call_on_commit(connection, batch)
    batch.entries.append((transaction.savepoints(connection), waiting))


class _Batch:
    """The sends that wait for one transaction; one of the callbacks in Django's ``run_on_commit``.

    It also replaces the set of savepoints that Django checks on a rollback: with one callback for each send, the sends
    could not leave together.
    """

    __qualname__ = "channelsq's sends"  # the name in Django's log

    def __init__(self, release: Callable[[list[Any]], None]) -> None:
        self.entries: list[tuple[tuple[str | None, ...], Any]] = []
        self._release = release

    def __contains__(self, savepoint: str) -> bool:
        """Drop the sends within a savepoint that was rolled back; the others stay."""
        self.entries = [entry for entry in self.entries if savepoint not in entry[0]]
        return False

    def __call__(self) -> None:
        """Release the sends that wait for no other transaction."""
        ready = []
        for _, waiting in self.entries:
            waiting.transactions -= 1
            if not waiting.transactions:
                ready.append(waiting)
        self.entries = []
        if ready:
            self._release(ready)


@contextmanager
def from_outside() -> Iterator[None]:
    """Treat the ``atomic`` blocks that are open now as a test's, within a ``with`` block."""
    blocks = [
        block
        for connection in transactions()
        for block in transaction.open_blocks(connection)
        if not _is_outside(block)
    ]
    for block in blocks:
        setattr(block, _OUTSIDE, True)
    try:
        yield
    finally:
        for block in blocks:
            delattr(block, _OUTSIDE)


def _is_outside(block: Any) -> bool:
    return transaction.is_of_testcase(block) or bool(getattr(block, _OUTSIDE, False))


def _is_outermost(connection: Any) -> bool:
    """Return whether all open blocks are from outside, or have no savepoint and so cannot fail alone."""
    return all(
        _is_outside(block) or not transaction.has_savepoint(block) for block in transaction.open_blocks(connection)
    )


def _savepoint_ended(connection: Any) -> None:
    if connection.in_atomic_block and _is_outermost(connection):
        for batch in transaction.take_calls_on_commit(connection, _Batch):
            batch()
