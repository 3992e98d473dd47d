"""Consumers that write down what they are handed, when they begin with it and when they have done it.

A line goes to the file in one write that appends, so a process that is killed has either written it or not.
"""

from __future__ import annotations

import os
import random
import time
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


def _begin(message: Message, kind: str, what: object) -> tuple[object, ...]:
    """Write down that a message is here; gives the words for its end."""
    _, number, turn = message["path"].strip("/").split("/")
    words = (kind, number, turn, message["order"], what, message.id)
    _journal("begin", *words)
    return words


def connect(message: Message) -> None:
    """Join the room, and tell the socket its name."""
    words = _begin(message, "connect", "-")
    assert message.reply_channel is not None
    Group(room_of(int(words[1]))).add(message.reply_channel)
    message.reply_channel.send({"text": f"welcome {message.reply_channel.name} {words[1]} {words[2]}"})
    _journal("end", *words)


def receive(message: Message) -> None:
    """Answer with whom this was for."""
    words = _begin(message, "receive", message["text"])
    time.sleep(random.uniform(0, 0.004))
    assert message.reply_channel is not None
    message.reply_channel.send({"text": f"answer {words[1]} {words[2]} {message['text']}"})
    _journal("end", *words)


def disconnect(message: Message) -> None:
    """Nothing but to write it down."""
    _journal("end", *_begin(message, "disconnect", message["code"]))


PATH = r"^/chaos/\d+/\d+/$"

channel_routing = [
    route("websocket.connect", connect, path=PATH),
    route("websocket.receive", receive, path=PATH),
    route("websocket.disconnect", disconnect, path=PATH),
]


@signals.worker_ready.connect
def _say_so(**kwargs: object) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO
