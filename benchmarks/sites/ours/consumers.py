"""Plain consumers: an echo, and a room whose members hear what one of them says."""

from __future__ import annotations

from typing import Any

from channelsq import Group


def echo(message: Any) -> None:
    """Send back what came."""
    message.reply_channel.send({"text": message["text"]})


def join(message: Any, group: str) -> None:
    """Make the socket a member, then accept it."""
    Group(group).add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def say(message: Any, group: str) -> None:
    """Send what came to every member."""
    Group(group).send({"text": message["text"]})


def leave(message: Any, group: str) -> None:
    """End the membership, as the peer's consumer does."""
    Group(group).discard(message.reply_channel)
