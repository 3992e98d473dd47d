"""Consumers of both layers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from channelsq import Channel, Group, consumer
from channelsq.message import Message


def connect(message: Message) -> None:
    """Accepts, and joins the room of the message's own layer."""
    assert message.reply_channel is not None
    message.reply_channel.send({"accept": True})
    Group("room", channel_layer=message.channel_layer).add(message.reply_channel)


def receive(message: Message) -> None:
    """``where`` tells the layer; ``tell LAYER TEXT`` sends to its room; others go over another channel."""
    assert message.reply_channel is not None
    here = message.channel_layer.alias
    word, _, rest = message["text"].partition(" ")
    if word == "where":
        message.reply_channel.send({"text": f"{here} {message.reply_channel.channel_layer.alias} {os.getpid()}"})
    elif word == "tell":
        alias, _, text = rest.partition(" ")
        message.reply_channel.send({"text": f"{here} told {alias}"})
        Group("room", alias=alias).send({"text": f"{text} from {here}"})
        if text == "never":
            raise RuntimeError("nothing of this is sent")
    elif word == "job":
        Channel("job", alias="other").send({"reply_channel": message.reply_channel.name, "asker": here})
    elif word == "fail":
        Channel("fail").send({"reply_channel": message.reply_channel.name})
    elif word == "hang":
        Channel("hang").send({"reply_channel": message.reply_channel.name})


def job(message: Message) -> None:
    """Runs on the other layer, and answers on the asker's."""
    asker = Channel(message["reply_channel"], alias=message["asker"])
    asker.send({"text": f"job done on {message.channel_layer.alias}"})


@consumer(bind=True, max_retries=3)
def fail_once(task: Any, message: Message) -> None:
    """Is tried again once."""
    assert message.reply_channel is not None
    if not task.request.retries:
        raise task.retry(countdown=0)
    message.reply_channel.send({"text": f"retried on {message.channel_layer.alias}"})


def hang_once(message: Message) -> None:
    """The first time it says who it is and never returns; then it answers."""
    assert message.reply_channel is not None
    marks = Path(os.environ["TEST_MARKS"])
    mark = marks / "hangs"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        threading.Event().wait()
    message.reply_channel.send({"text": f"at last by {os.getpid()}"})
