"""Plain consumers: echoes, and a room whose members get each other's messages."""

from __future__ import annotations

from typing import Any

from benchmarks.sites import work
from channelsq import Group


def echo(message: Any) -> None:
    """Send back the text."""
    message.reply_channel.send({"text": message["text"]})


def wait(message: Any, us: str) -> None:
    """Block for ``us`` microseconds, then send back the text."""
    work.wait(int(us))
    message.reply_channel.send({"text": message["text"]})


def query(message: Any) -> None:
    """Send back the database's answer."""
    message.reply_channel.send({"text": work.query(message["text"])})


def compute(message: Any, us: str) -> None:
    """Use the processor for ``us`` microseconds, then send back the text."""
    work.compute(int(us))
    message.reply_channel.send({"text": message["text"]})


def join(message: Any, group: str) -> None:
    """Make the socket a member, then accept it."""
    Group(group).add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def say(message: Any, group: str) -> None:
    """Send the text to every member."""
    Group(group).send({"text": message["text"]})


def leave(message: Any, group: str) -> None:
    """End the membership, as the peer's consumer does."""
    Group(group).discard(message.reply_channel)
