"""Sends that are held until the consumer that is running has succeeded, and its transactions are committed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from channelsq.core.contracts import MessageLike, TargetLike
from channelsq.delivery import commits
from channelsq.exceptions import ChannelFull

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.layers.contract.layer_contract import Send

logger = logging.getLogger("channelsq.worker")


class Pending(dict["ChannelLayerWrapper", list["Send"]]):
    """The sends that are held for one consumer, by layer."""

    #: True once its consumer has ended: what a thread or task that outlived it sends goes out at once.
    closed = False

    #: The message that the consumer handles; None if there is none.
    message: MessageLike | None = None

    #: True once its consumer has failed.
    failed = False

    #: Layers that :meth:`settle` could send nothing on, as far as is known.
    refused: tuple[ChannelLayerWrapper, ...] = ()

    #: Those of the sends, the very objects, that go out even if the consumer fails.
    certain: list[Send] | None = None

    def hold(self, layer: ChannelLayerWrapper, send: Send) -> None:
        """Hold one more."""
        sends = self.get(layer)
        if sends is None:
            self[layer] = [send]
        else:
            sends.append(send)

    def hold_certain(self, layer: ChannelLayerWrapper, sends: Sequence[Send]) -> None:
        """Hold some that go out even if the consumer fails, among the others and in their turn."""
        for send in sends:
            self.hold(layer, send)
        if self.certain is None:
            self.certain = []
        self.certain.extend(sends)

    def fail(self) -> None:
        """Drop what is held, except for what is certain, which is sent; if that cannot be, it is logged."""
        self.closed = self.failed = True
        held = list(self.items())
        self.clear()
        if self.certain is None:
            return
        certain = {id(send) for send in self.certain}
        for layer, sends in held:
            # The consumer's own failure is what is raised.
            _dispatch_committed(layer, [send for send in sends if id(send) in certain])

    def settle(self, at_once: bool = False) -> None:
        """Send what is held, in order and with as few writes as there are layers.

        Args:
            at_once: not together with the acknowledgement of the message that is being handled.

        Raises:
            ChannelFull, BrokerUnavailable: the first that a layer raised; every layer is asked.
        """
        self.closed = True
        held = list(self.items())
        self.clear()  # a consumer may have done this itself, and its end does it again
        failures: list[Exception] = []
        for layer, sends in held:
            try:
                if at_once:
                    layer.dispatch(sends)
                else:
                    layer.settle(sends)
            except Exception as error:
                failures.append(error)
                if not isinstance(error, ChannelFull):  # which is raised when all else was sent
                    self.refused = (*self.refused, layer)
        if failures:
            for failure in failures[1:]:
                failures[0].add_note(f"and on another channel layer: {failure}")
            raise failures[0]


class _Uncommitted:
    """A send that was made in one or several database transactions.

    Args:
        layer: where it is to be sent.
        send: what was prepared.
        certain: whether it goes out even if the consumer fails.
        pending: what holds the sends of the consumer that made it; None outside of consumers.
    """

    __slots__ = ("certain", "layer", "pending", "send", "transactions")

    def __init__(self, layer: ChannelLayerWrapper, send: Send, certain: bool, pending: Pending | None) -> None:
        self.layer, self.send, self.certain, self.pending = layer, send, certain, pending
        self.transactions = 0


def _release(committed: list[_Uncommitted]) -> None:
    """Have sends go on, now that their transaction is committed: to their consumer's others, or out."""
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
    """Send what can fail nobody any more, as its transaction is committed; a failure is logged and counted."""
    try:
        if sends:
            layer.dispatch(sends)
    except Exception as error:
        layer.note_unsent(sends, error)


#: What is held where the code runs; None outside of consumers.
held_here: ContextVar[Pending | None] = ContextVar("channelsq_pending", default=None)


def _current() -> Pending | None:
    pending = held_here.get()
    return None if pending is None or pending.closed else pending


class PendingMessageStore:
    """The sends of the consumer that is running, held until it has succeeded; those made in a database transaction
    are held, in a consumer or not, until that is committed.

    The store belongs to the running context, so that it is one per worker thread, and follows a consumer
    into ``async_to_sync`` and ``sync_to_async``.
    """

    @property
    def active(self) -> bool:
        """Whether sends are being held here."""
        return _current() is not None

    def prepare(self, **kwargs: Any) -> None:
        """Hold sends from now on."""
        if _current() is None:
            held_here.set(Pending())

    def append(self, sender: TargetLike, message: dict[str, Any]) -> None:
        """Check, pack and hold one message for ``sender``; errors as :meth:`Channel.send`."""
        self.hold(sender.channel_layer, sender.prepare(message))

    def hold(self, layer: ChannelLayerWrapper, send: Send) -> None:
        """Hold one prepared send; outside a consumer and a transaction it goes out at once."""
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
        """Hold prepared sends that tell of a change of a database; they go out even if the consumer fails.

        Args:
            layer: where they are to be sent.
            sends: what was prepared.
            connection: that of the database, if its transaction, and no other, is to be waited for.
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
        """Hold sends within a ``with`` block, on top of what is being held; gives them.

        What :meth:`send_and_flush` has not sent at the block's end is dropped, except for what is certain.
        Transactions that are open already are none of the block's: nothing in it waits for them.
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
        """Drop what is held, except for what is certain, and hold no more."""
        pending = _current()
        held_here.set(None)
        if pending is not None:
            pending.fail()

    def send_and_flush(self, **kwargs: Any) -> None:
        """Send what is held now, in order and with as few writes as there are layers, and hold no more."""
        pending = _current()
        if pending is None:
            return
        held_here.set(None)
        pending.settle(at_once=True)


pending_message_store = PendingMessageStore()
