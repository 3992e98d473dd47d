"""Consumers that are classes, several of them on one socket, and bindings among them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from celery import current_task
from django.db import transaction

from channelsq import consumer
from channelsq.generic.websockets import JsonWebsocketConsumer, WebsocketDemultiplexer
from channelsq.message import Message
from tests.project.bindings import NoteBinding
from tests.project.models import Note


@consumer(autoretry_for=(ValueError,), retry_kwargs={"countdown": 0.1, "max_retries": 3})
class Greeter(JsonWebsocketConsumer):
    greeting = "hello"

    def receive(self, content: Any, name: str, **kwargs: Any) -> None:
        retries = current_task.request.retries
        if retries < content["failures"]:
            raise ValueError("not yet")
        self.send({"said": f"{self.greeting} {name}", "path": self.path, "kwargs": self.kwargs, "retries": retries})


def write(message: Message, multiplexer: Any, board: str) -> None:
    """Write a note in a transaction, and fail within it, after it, or not at all."""
    if message.channel_name != "websocket.receive":
        return
    failing = json.loads(message["text"])["failing"]
    multiplexer.send("before")
    with transaction.atomic():
        Note.objects.create(board=board, text=f"failing {failing}")
        if failing == "within":
            raise RuntimeError("this transaction is rolled back")
    if failing == "after":
        raise RuntimeError("this transaction was committed")
    multiplexer.send("after")


class Board(WebsocketDemultiplexer):
    http_user = True
    consumers = {"notes": NoteBinding.consumer, "write": write}

    def connection_groups(self, board: str, **kwargs: Any) -> Iterable[str]:
        return [f"notes-{board}"]
