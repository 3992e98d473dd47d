"""Sockets that echo, and all hear what is broadcast."""

from __future__ import annotations

from channelsq import Group
from channelsq.message import Message


def connect(message: Message) -> None:
    """Accept, and join the group."""
    assert message.reply_channel is not None
    Group("all").add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def receive(message: Message) -> None:
    """Echo."""
    assert message.reply_channel is not None
    message.reply_channel.send({"text": message["text"]})


def disconnect(message: Message) -> None:
    """Leave the group."""
    assert message.reply_channel is not None
    Group("all").discard(message.reply_channel)


def broadcast(message: Message) -> None:
    """Tell every socket."""
    Group("all").send({"text": message["text"]})
