"""Views, consumers and a task that send from within transactions."""

from __future__ import annotations

import contextlib
from typing import Any

from celery import shared_task
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from channelsq import Channel, Group, route
from channelsq.exceptions import ResponseLater, WebsocketCloseException
from channelsq.message import Message
from tests.project.models import Note
from tests.project.records import record
from tests.project.routing import channel_routing as others


def say(text: str, **kwargs: Any) -> None:
    """Tell every socket."""
    Group("room").send({"text": text}, **kwargs)


def view(request: HttpRequest, what: str) -> HttpResponse:
    """Write a note and tell of it."""
    Note.objects.create(board="atomic", text=what)
    say(f"{what}: later")
    with contextlib.suppress(LookupError), transaction.atomic():
        say(f"{what}: lost with its savepoint")
        raise LookupError
    say(f"{what}: now", immediately=True)
    if what == "fail":
        raise LookupError(what)
    if what == "full":
        for _ in range(200):
            Channel("nobody-reads").send({"text": what})
    if what == "task":
        shout.delay("task", fail=True)
        shout.delay("task", fail=False)
    if what == "answered-later":
        Channel("answer").send({"to": request.message.reply_channel.name})  # type: ignore[attr-defined]
        raise ResponseLater
    return HttpResponse(what)


def notes(request: HttpRequest) -> HttpResponse:
    """The notes that were committed."""
    return HttpResponse(" ".join(Note.objects.order_by("pk").values_list("text", flat=True)))


def answer(message: Message) -> None:
    """Answer the request of a view that has left it to this consumer."""
    committed = Note.objects.filter(text="answered-later").exists()
    content = b"answered later" if committed else b"not committed"
    Channel(message["to"]).send({"status": 200, "headers": [], "content": content, "more_content": False})


@transaction.atomic
def receive(message: Message) -> None:
    """Answer, unless it is to fail or to close."""
    assert message.reply_channel is not None
    message.reply_channel.send({"text": "answer"})
    say("to all")
    record("atomic", message["text"])
    if message["text"] == "fail":
        raise LookupError("fail")
    if message["text"] == "close":
        raise WebsocketCloseException(3000)


@shared_task(ignore_result=True)
def shout(text: str, fail: bool) -> None:
    """Tell every socket, from an ordinary task."""
    with contextlib.suppress(LookupError), transaction.atomic():
        say(f"{text}: {'lost' if fail else 'shouted'}")
        if fail:
            raise LookupError


urlpatterns = [path("notes/", notes), path("in/<slug:what>/", view)]
channel_routing = [
    route("answer", answer),
    route("websocket.receive", receive, path=r"^/atomic/$"),
    *others,
]
