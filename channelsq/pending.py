"""The sends of the consumer that is running, held until it has succeeded."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.channel import Channel, Group
    from channelsq.layers.base import Send


class Pending(list[tuple["ChannelLayerWrapper", "Send"]]):
    """The sends that are held for one consumer."""

    #: True once its consumer has ended: what a thread or task that outlived it sends goes out at once.
    closed = False


_pending: ContextVar[Pending | None] = ContextVar("channelsq_pending", default=None)


def _current() -> Pending | None:
    pending = _pending.get()
    return None if pending is None or pending.closed else pending


class Holding:
    """See :meth:`PendingMessageStore.holding`; a class, as a generator would take three times as long."""

    __slots__ = ("_held", "_token")

    def __enter__(self) -> Pending:
        self._held = held = Pending()
        self._token = _pending.set(held)
        return held

    def __exit__(self, *error: object) -> None:
        self._held.closed = True
        _pending.reset(self._token)


class PendingMessageStore:
    """The sends of the consumer that is running, held until it has succeeded.

    The store belongs to the running context, so that it is one per worker thread, and follows a consumer
    into ``async_to_sync`` and ``sync_to_async``.
    """

    @property
    def active(self) -> bool:
        """Whether sends are being held here."""
        return _current() is not None

    def prepare(self, **kwargs: Any) -> None:
        """Hold sends from now on."""
        _pending.set(Pending())

    def append(self, sender: Channel | Group, message: dict[str, Any]) -> None:
        """Check, pack and hold one message for ``sender``; errors as :meth:`Channel.send`."""
        self.hold(sender.channel_layer, sender.prepare(message))

    def hold(self, layer: ChannelLayerWrapper, send: Send) -> None:
        """Hold one prepared send; outside a consumer it goes out at once."""
        pending = _current()
        if pending is None:
            layer.dispatch((send,))
        else:
            pending.append((layer, send))

    def holding(self) -> Holding:
        """Hold sends within a ``with`` block, on top of what is being held; gives the list of them.

        What :meth:`send_and_flush` has not sent at the block's end is dropped.
        """
        return Holding()

    def discard(self) -> None:
        """Drop what is held, and hold no more."""
        _pending.set(None)

    def send_and_flush(self, **kwargs: Any) -> None:
        """Send what is held, in order and with as few writes as there are layers, and hold no more."""
        pending = _current()
        if pending is None:
            return
        pending.closed = True
        _pending.set(None)
        if not pending:
            return
        layer = pending[0][0]
        for other, _ in pending:
            if other is not layer:
                break
        else:  # nearly always
            layer.settle([send for _, send in pending])
            return
        layers = {id(layer): layer for layer, _ in pending}
        failures: list[Exception] = []
        for layer in layers.values():
            try:
                layer.settle([send for other, send in pending if other is layer])
            except Exception as error:
                failures.append(error)
        if failures:
            for failure in failures[1:]:
                failures[0].add_note(f"and on another channel layer: {failure}")
            raise failures[0]


pending_message_store = PendingMessageStore()
