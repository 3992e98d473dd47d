"""Consumers that answer HTTP themselves, now or later, and consumers whose exceptions have an effect."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Reject
from django.http import HttpRequest, HttpResponse, JsonResponse

from channelsq import Channel
from channelsq.exceptions import ChannelSocketException, DenyConnection, ResponseLater, WebsocketCloseException
from channelsq.handler import AsgiHandler, AsgiRequest
from channelsq.message import Message
from channelsq.security.websockets import allowed_hosts_only
from tests.project.records import record, wait_for_go


def _send(message: Message, **content: Any) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send(content)


# -- HTTP ---------------------------------------------------------------------------------------


def http_consumer(message: Message, size: str) -> None:
    """A response chunk by chunk, as the first consumer in Channels 1's documentation sends it."""
    request = AsgiRequest(message)
    response: HttpResponse = JsonResponse({"path": request.path, "method": request.method, "body": len(request.body)})
    if size:
        response = HttpResponse(b"x" * int(size), content_type="application/octet-stream")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    for chunk in AsgiHandler.encode_response(response):
        _send(message, **chunk)


def fail(message: Message) -> None:
    """Fails in the middle of its answer."""
    _send(message, status=200, content=b"half", more_content=True)
    raise RuntimeError("this HTTP consumer always fails")


def park(message: Message, name: str) -> None:
    """Leaves a request to whoever has read the record ``parked-<name>``."""
    record(f"parked-{name}", message.reply_channel)
    raise ResponseLater


def parking_view(request: HttpRequest, name: str) -> HttpResponse:
    """The same as a view."""
    assert isinstance(request, AsgiRequest)
    record(f"parked-{name}", request.reply_channel)
    raise request.ResponseLater


def release_view(request: HttpRequest) -> HttpResponse:
    """Has a parked request answered: by another consumer, by a Celery task, or here."""
    client, by = request.GET["client"], request.GET["by"]
    if by == "task":
        answer_by_task.delay(client)
    elif by == "consumer":
        Channel("release").send({"client": client, **({"go": request.GET["go"]} if "go" in request.GET else {})})
    else:
        answer(client)
    return HttpResponse("released")


def release(message: Message) -> None:
    """Answers a parked request: all at once, or a part now and the rest when the test lets it go."""
    answer(message["client"], message.get("go"))


def answer(client: str, go: str | None = None) -> None:
    """See :func:`release`."""
    headers = [[b"content-type", b"text/plain"]]
    first = "first " if go else "all"
    more = go is not None
    Channel(client).send(
        {"status": 200, "headers": headers, "content": first.encode(), "more_content": more}, immediately=True
    )
    if go:
        text = "second" if wait_for_go(f"{go}.go") else "the test did not let it go"
        Channel(client).send({"content": text.encode(), "more_content": False})


@shared_task
def answer_by_task(client: str) -> None:
    """A Celery task that answers a parked request."""
    answer(client)


# -- WebSockets ---------------------------------------------------------------------------------


@allowed_hosts_only
def pages_connect(message: Message) -> None:
    _send(message, accept=True)


class Problem(ChannelSocketException):
    """Says what is wrong, and closes."""

    def run(self, message: Message) -> None:
        _send(message, text=str(self), close=4007)


def effects_connect(message: Message, what: str) -> None:
    """Do as the path says."""
    if what == "deny":
        raise DenyConnection
    if what == "close":
        raise WebsocketCloseException(4000)
    _send(message, accept=True)
    if what == "deny-late":
        _send(message, text="sorry")
        raise DenyConnection


def failing_connect(message: Message, way: str) -> None:
    """Fails in one of several ways, after it has accepted the socket."""
    _send(message, accept=True)
    if way == "raise":
        raise ValueError("on purpose")
    if way == "unserialisable":
        _send(message, text="no", more=object())
    elif way == "reject":
        raise Reject("on purpose", requeue=False)
    elif way == "ignore":
        raise Ignore


async def async_connect(message: Message) -> None:
    """Is never awaited: consumers are plain functions."""
    _send(message, accept=True)


def silent_connect(message: Message) -> None:
    """Leaves the answer to somebody else."""


def effects_receive(message: Message, what: str) -> None:
    """Closes as it is told to, after an answer."""
    _send(message, text="before")
    order = message["text"]
    if order == "elsewhere":
        assert message.reply_channel is not None
        Channel("effects").send({"reply_channel": message.reply_channel.name})
    elif order == "problem":
        raise Problem("no problem")
    elif order:
        raise WebsocketCloseException(int(order))
    else:
        raise WebsocketCloseException


def effects_elsewhere(message: Message) -> None:
    """Closes a socket from a channel of its own."""
    raise WebsocketCloseException(4009)
