"""Plain consumers: echoes, and a room whose members get each other's messages."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.sites import work
from channelsq import Group
from channelsq.live import start


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


def start_tasks(message: Any) -> None:
    """Start live tasks whose audience is the socket."""
    from benchmarks.sites.ours.tasks import report  # not at the top: the routing is read before the Celery app is there

    asked = json.loads(message["text"])
    for _ in range(asked["tasks"]):
        start(report.s(asked["reports"], asked["pause"]), to=message.reply_channel)


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
