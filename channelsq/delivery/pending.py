"""Sends that wait for the success of the running consumer, and for the commit of its transactions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from channelsq.core.contracts import MessageLike, TargetLike
from channelsq.delivery import commits
from channelsq.exceptions import ChannelFull

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.layers.contract.layer_values import Send

logger = logging.getLogger("channelsq.worker")


class Pending(dict["ChannelLayerWrapper", list["Send"]]):
    """The sends that are held for one consumer, by layer."""

    #: True once its consumer has ended: sends of a thread or task that outlived it leave at once.
    closed = False

    #: The message that the consumer handles; None if there is none.
    message: MessageLike | None = None

    #: True once its consumer has failed.
    failed = False

    #: Layers on which :meth:`settle` could send nothing, as far as known.
    refused: tuple[ChannelLayerWrapper, ...] = ()

    #: The sends, by identity, that leave even if the consumer fails.
    certain: list[Send] | None = None

    #: Called with the held sends by layer before these leave, if the consumer succeeds; see :meth:`call_before`.
    _before: dict[Hashable, Callable[[Pending], None]] | None = None

    def call_before(self, key: Hashable, work: Callable[[Pending], None]) -> None:
        """Call ``work`` with the held sends before they leave, once for a key; not if the consumer fails.

        An error of ``work`` is one of the consumer.
        """
        if self._before is None:
            self._before = {}
        self._before[key] = work

    def hold(self, layer: ChannelLayerWrapper, send: Send) -> None:
        """Hold one more send."""
        sends = self.get(layer)
        if sends is None:
            self[layer] = [send]
        else:
            sends.append(send)

    def hold_certain(self, layer: ChannelLayerWrapper, sends: Sequence[Send]) -> None:
        """Hold sends that leave even if the consumer fails, in order among the others."""
        for send in sends:
            self.hold(layer, send)
        if self.certain is None:
            self.certain = []
        self.certain.extend(sends)

    def fail(self) -> None:
        """Drop the held sends, except the certain ones, which leave; a failure of these is logged."""
        self.closed = self.failed = True
        held = list(self.items())
        self.clear()
        if self.certain is None:
            return
        certain = {id(send) for send in self.certain}
        for layer, sends in held:
            # The consumer's own exception is raised.
            _dispatch_committed(layer, [send for send in sends if id(send) in certain])

    def settle(self, at_once: bool = False) -> None:
        """Send all held sends, in order and with one write a layer.

        Args:
            at_once: send them apart from the acknowledgement of the current message.

        Raises:
            ChannelFull, BrokerUnavailable: the first error of a layer; every layer is tried.
        """
        before, self._before = self._before, None
        try:
            for work in before.values() if before is not None else ():
                work(self)
        except BaseException:
            self.refused = tuple(self)
            self.fail()
            raise
        self.closed = True
        held = list(self.items())
        self.clear()  # a consumer may call this itself, and its end calls it again
        failures: list[Exception] = []
        for layer, sends in held:
            try:
                if at_once:
                    layer.dispatch(sends)
                else:
                    layer.settle(sends)
            except Exception as error:
                failures.append(error)
                if not isinstance(error, ChannelFull):  # which a layer raises after all other sends
                    self.refused = (*self.refused, layer)
        if failures:
            for failure in failures[1:]:
                failures[0].add_note(f"and on another channel layer: {failure}")
            raise failures[0]


class _Uncommitted:
    """A send made in one or several database transactions.

    Args:
        layer: the layer of the send.
        send: the prepared send.
        certain: whether it leaves even if the consumer fails.
        pending: the held sends of its consumer; None outside of consumers.
    """

    __slots__ = ("certain", "layer", "pending", "send", "transactions")

    def __init__(self, layer: ChannelLayerWrapper, send: Send, certain: bool, pending: Pending | None) -> None:
        self.layer, self.send, self.certain, self.pending = layer, send, certain, pending
        self.transactions = 0


def _release(committed: list[_Uncommitted]) -> None:
    """Continue with sends whose transaction is committed: add them to their consumer's, or send them."""
    out: dict[ChannelLayerWrapper, list[Send]] = {}
    for each in committed:
        pending = each.pending
        if pending is None or pending.closed:
            if pending is None or each.certain or not pending.failed:
                out.setdefault(each.layer, []).append(each.send)
        elif each.certain:
            pending.hold_certain(each.layer, (each.send,))
        else:
            pending.hold(each.layer, each.send)
    for layer, sends in out.items():
        _dispatch_committed(layer, sends)


def _dispatch_committed(layer: ChannelLayerWrapper, sends: list[Send]) -> None:
    """Send committed sends, which can no longer fail their transaction; a failure is logged and counted."""
    try:
        if sends:
            layer.dispatch(sends)
    except Exception as error:
        layer.note_unsent(sends, error)


#: The held sends of the running code; None outside of consumers.
held_here: ContextVar[Pending | None] = ContextVar("channelsq_pending", default=None)


def _current() -> Pending | None:
    pending = held_here.get()
    return None if pending is None or pending.closed else pending


class PendingMessageStore:
    """The sends of the running consumer, held until it has succeeded.  Sends in a database transaction are held until
    its commit, inside consumers and outside.

    The store belongs to the running context.  So it is one per worker thread, and follows a consumer into
    ``async_to_sync`` and ``sync_to_async``.
    """

    @property
    def active(self) -> bool:
        """True while sends are held here."""
        return _current() is not None

    def prepare(self, **kwargs: Any) -> None:
        """Hold sends from now on."""
        if _current() is None:
            held_here.set(Pending())

    def append(self, sender: TargetLike, message: dict[str, Any]) -> None:
        """Check, pack and hold one message for ``sender``; errors as in :meth:`Channel.send`."""
        self.hold(sender.channel_layer, sender.prepare(message))

    def hold(self, layer: ChannelLayerWrapper, send: Send) -> None:
        """Hold one prepared send; outside a consumer and a transaction it leaves at once."""
        transactions = commits.transactions()
        pending = held_here.get()
        if transactions:
            uncommitted = _Uncommitted(layer, send, False, _current())
            for connection in transactions:
                commits.wait(connection, uncommitted, _release)
        elif pending is None or pending.closed:
            layer.dispatch((send,))
        else:
            pending.hold(layer, send)

    def hold_certain(self, layer: ChannelLayerWrapper, sends: Sequence[Send], connection: Any = None) -> None:
        """Hold prepared sends about a change of a database; they leave even if the consumer fails.

        Args:
            layer: the layer of the sends.
            sends: the prepared sends.
            connection: the database's connection, to wait for its transaction and no other.
        """
        pending = _current()
        if connection is not None and commits.is_waited_for(connection):
            for send in sends:
                commits.wait(connection, _Uncommitted(layer, send, True, pending), _release)
        elif pending is None:
            layer.dispatch(sends)
        else:
            pending.hold_certain(layer, sends)

    @contextmanager
    def holding(self) -> Iterator[Pending]:
        """Hold sends within a ``with`` block, on top of those already held, and yield them.

        At the block's end all sends that :meth:`send_and_flush` has not sent are dropped, except the certain ones.
        Sends in the block do not wait for transactions that are already open.
        """
        held = Pending()
        token = held_here.set(held)
        try:
            with commits.from_outside():
                yield held
        finally:
            held_here.reset(token)
            held.fail()

    def discard(self) -> None:
        """Drop the held sends, except the certain ones, and hold no more."""
        pending = _current()
        held_here.set(None)
        if pending is not None:
            pending.fail()

    def send_and_flush(self, **kwargs: Any) -> None:
        """Send the held sends now, in order and with one write a layer, and hold no more."""
        pending = _current()
        if pending is None:
            return
        held_here.set(None)
        pending.settle(at_once=True)


pending_message_store = PendingMessageStore()
