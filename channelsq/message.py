"""What a consumer is given, and the sends that it makes."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from channelsq.channel import Channel, Group

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.layers.base import Send


class Message:
    """One message off a channel.

    Args:
        content: the message; its keys are those of the ASGI 1.0 message format of the channel.
        channel_name: the channel that it came from.
        channel_layer: the layer that carried it; replies go back through it.
    """

    def __init__(self, content: dict[str, Any], channel_name: str, channel_layer: ChannelLayerWrapper) -> None:
        self.content = content
        self.channel_layer = channel_layer
        self.channel = Channel(channel_name, channel_layer=channel_layer)
        reply_channel = content.get("reply_channel")
        #: Where the client that sent this listens, or None.
        self.reply_channel = Channel(reply_channel, channel_layer=channel_layer) if reply_channel else None

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.content[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self.content

    def __repr__(self) -> str:
        return f"<Message from {self.channel.name} with {sorted(self.content)}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def keys(self) -> KeysView[str]:
        """The keys of the content."""
        return self.content.keys()

    def values(self) -> ValuesView[Any]:
        """The values of the content."""
        return self.content.values()

    def items(self) -> ItemsView[str, Any]:
        """The items of the content."""
        return self.content.items()

    def get(self, key: str, default: Any = None) -> Any:
        """The value under ``key``, or ``default``."""
        return self.content.get(key, default)

    def copy(self) -> Message:
        """A message whose content can be changed without changing this one's."""
        return type(self)(self.content.copy(), self.channel.name, self.channel_layer)


class Pending(list[tuple["ChannelLayerWrapper", "Send"]]):
    """The sends that are held for one consumer."""

    #: True once its consumer has ended: what a thread or task that outlived it sends goes out at once.
    closed = False


_pending: ContextVar[Pending | None] = ContextVar("channelsq_pending", default=None)


def _current() -> Pending | None:
    pending = _pending.get()
    return None if pending is None or pending.closed else pending


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

    @contextmanager
    def holding(self) -> Iterator[Pending]:
        """Hold sends within the block, on top of what is being held; gives the list of them.

        What :meth:`send_and_flush` has not sent at the block's end is dropped.
        """
        held = Pending()
        token = _pending.set(held)
        try:
            yield held
        finally:
            held.closed = True
            _pending.reset(token)

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
        layers = {id(layer): layer for layer, _ in pending}
        failures: list[Exception] = []
        for layer in layers.values():
            try:
                layer.dispatch([send for other, send in pending if other is layer])
            except Exception as error:
                failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(f"and on another channel layer: {other}")
            raise failures[0]


pending_message_store = PendingMessageStore()
