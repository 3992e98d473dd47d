"""The consumers of messages that no route of the application claims."""

from __future__ import annotations

from typing import Any

from channelsq.message import Message


def connect(message: Message, **kwargs: Any) -> None:
    """Accept a WebSocket that no route claims, or refuse it if the layer's ``unrouted`` says so."""
    assert message.reply_channel is not None
    if message.channel_layer.unrouted == "refuse":
        message.reply_channel.send({"close": True})
    else:
        message.reply_channel.send({"accept": True})


def ignore(message: Message, **kwargs: Any) -> None:
    """Drop a WebSocket's frame or a disconnect that no route claims; unread they would fill their channel."""
