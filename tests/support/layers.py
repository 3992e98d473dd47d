"""Layers for the tests of the core: real ones, in memory, that also say what they were asked to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.message import Message
from tests.support.fakes.layers import RecordingLayer


def wrapped(routing: Any = (), alias: str = "default", **config: Any) -> ChannelLayerWrapper:
    """A new recording layer with ``routing``."""
    return ChannelLayerWrapper(RecordingLayer(**config), alias, routing)


@contextlib.contextmanager
def installed(layer: ChannelLayerWrapper | None) -> Iterator[None]:
    """``layer`` as the default layer (None: none is made yet) within the block."""
    old = channel_layers.set("default", layer)
    try:
        yield
    finally:
        channel_layers.set("default", old)


def drain(layer: ChannelLayerWrapper, *channels: str) -> list[dict[str, Any]]:
    """Everything that is on ``channels`` now."""
    messages: list[dict[str, Any]] = []
    while True:
        _channel, message = layer.receive(channels)
        if message is None:
            return messages
        messages.append(message)


def message_on(layer: ChannelLayerWrapper, channel: str = "websocket.receive", **content: Any) -> Message:
    """A message with a reply channel of its own; ``reply_channel=None`` for one without."""
    content.setdefault("reply_channel", layer.new_channel("websocket.send!"))
    return Message({key: value for key, value in content.items() if value is not None}, channel, layer)


def replies(layer: ChannelLayerWrapper, message: Message) -> list[dict[str, Any]]:
    """Return the messages that were sent to the client of ``message``."""
    assert message.reply_channel is not None
    return drain(layer, message.reply_channel.name)
