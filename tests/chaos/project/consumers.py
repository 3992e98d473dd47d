"""Consumers that write down what they are handed, when they begin with it and when they have done it.

A line goes to the file in one write that appends, so a process that is killed has either written it or not.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import signals

from channelsq import Group, route
from channelsq.message import Message
from tests.chaos import room_of

_files: dict[int, int] = {}


def _journal(*words: object) -> None:
    pid = os.getpid()
    if pid not in _files:
        path = Path(os.environ["CHAOS_JOURNAL"]) / f"worker-{pid}"
        _files[pid] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    # The monotonic clock is the system's: all processes share it.
    os.write(_files[pid], f"{time.monotonic():.6f} {' '.join(map(str, words))}\n".encode())


@contextmanager
def _written_down(message: Message, kind: str, what: object) -> Iterator[tuple[int, int]]:
    """Write down that a message is here, and that it is done with; gives the socket's number, and its how-many-eth."""
    _, number, turn = message["path"].strip("/").split("/")
    words = (kind, number, turn, message["order"], what, message.id)
    _journal("begin", *words)
    try:
        yield int(number), int(turn)
    finally:
        _journal("end", *words)  # also of one that failed: a group that cannot be reached, say


def connect(message: Message) -> None:
    """Join the room, and tell the socket its name."""
    assert message.reply_channel is not None
    with _written_down(message, "connect", "-") as (number, turn):
        Group(room_of(number)).add(message.reply_channel)
        message.reply_channel.send({"text": f"welcome {message.reply_channel.name} {number} {turn}"})


def receive(message: Message) -> None:
    """Answer with whom this was for."""
    assert message.reply_channel is not None
    with _written_down(message, "receive", message["text"]) as (number, turn):
        time.sleep(random.uniform(0, 0.004))
        message.reply_channel.send({"text": f"answer {number} {turn} {message['text']}"})


def disconnect(message: Message) -> None:
    """Nothing but to write it down."""
    with _written_down(message, "disconnect", message["code"]):
        pass


PATH = r"^/chaos/\d+/\d+/$"

channel_routing = [
    route("websocket.connect", connect, path=PATH),
    route("websocket.receive", receive, path=PATH),
    route("websocket.disconnect", disconnect, path=PATH),
]


@signals.worker_ready.connect
def _say_so(**kwargs: object) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO
