"""Waiting for the commit of the database transactions that a thread is in."""

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

#: Marks ``atomic`` blocks that somebody else has begun: nobody here waits for their end.
_OUTSIDE = "_channelsq_outside"


class _Thread(threading.local):
    """The state of a thread."""

    #: The database connections that it has opened; None before the first look.
    opened: list[weakref.ref[Any]] | None = None


_here = _Thread()


def _first_look() -> list[weakref.ref[Any]]:
    """Note the connections that this thread has, also those that another one lent to it; more are signalled."""
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
    """Return whether a transaction is open on ``connection`` whose commit, or rollback, will be known.

    Nobody commits the transaction that a Django ``TestCase`` keeps open, nor for a consumer what a test has begun
    around it, and nobody tells of the end of one that was begun with autocommit off.  Within these, a commit is the
    end of the outermost ``atomic`` block with a savepoint.
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
    """Have ``waiting`` released when the transaction that is open on ``connection`` is committed.

    It is forgotten if the transaction, or a savepoint that is open now, is rolled back.

    Args:
        connection: one for which :func:`is_waited_for` is true.
        waiting: may wait for other connections, too; it is released after the last commit.
        release: called once for each commit, with all that waited for it, in order.
    """
    waiting.transactions += 1
    batch = next(transaction.calls_on_commit(connection, _Batch), None)
    if batch is None:
        batch = _Batch(release)
        transaction.call_on_commit(connection, batch)
    batch.entries.append((transaction.savepoints(connection), waiting))


class _Batch:
    """All that waits for one transaction: one of the callbacks that Django keeps in ``run_on_commit``.

    It stands for the set of savepoints, too, that Django looks into when one is rolled back: a callback for each
    send could not leave together with the others.
    """

    __qualname__ = "channelsq's sends"  # as Django's log would call it

    def __init__(self, release: Callable[[list[Any]], None]) -> None:
        self.entries: list[tuple[tuple[str | None, ...], Any]] = []
        self._release = release

    def __contains__(self, savepoint: str) -> bool:
        """Forget what was made within a savepoint, which has been rolled back; the rest stays."""
        self.entries = [entry for entry in self.entries if savepoint not in entry[0]]
        return False

    def __call__(self) -> None:
        """Release what waits for no other transaction."""
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
    """Count the ``atomic`` blocks that are open now as those of a test, within a ``with`` block."""
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
    """Return whether only blocks from outside, and blocks without a savepoint, which cannot fail alone, are open."""
    return all(
        _is_outside(block) or not transaction.has_savepoint(block) for block in transaction.open_blocks(connection)
    )


def _savepoint_ended(connection: Any) -> None:
    if connection.in_atomic_block and _is_outermost(connection):
        for batch in transaction.take_calls_on_commit(connection, _Batch):
            batch()
