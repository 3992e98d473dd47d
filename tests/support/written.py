"""Consumers as users with strict type checkers write them; checked, not run, by ``tests/unit/test_types.py``.

``reveal_type`` would be no test here: each statement has a type that is wrong unless channelsq's is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Task
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse

from channelsq import Channel, Group, Message, channel_layers, consumer, include, route, route_class
from channelsq.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
    transfer_user,
)
from channelsq.exceptions import ConsumeLater, DenyConnection
from channelsq.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from channelsq.handler import AsgiHandler, AsgiRequest, ViewConsumer
from channelsq.security.websockets import BaseOriginValidator, allowed_hosts_only
from channelsq.sessions import channel_and_http_session, channel_session, enforce_ordering, http_session


@allowed_hosts_only
@channel_session_user_from_http
def connect(message: Message, room: str) -> None:
    """Use the attributes that decorators add, and the reply channel of a client's message."""
    Group(f"chat-{room}").add(message.reply_channel)
    message.reply_channel.send({"accept": True})
    transfer_user(message.http_session, message.channel_session)
    message.channel_session["room"] = room
    name: str = message.reply_channel.name
    text: str = message.get("text", name)
    message.reply_channel.send({"text": f"{message.user.get_username()}: {text}"}, immediately=True)


@enforce_ordering
@channel_session_user
def receive(message: Message, room: str, count: int = 0) -> int:
    """Decorated consumers have their own signatures still."""
    Group(f"chat-{room}", alias="default").send({"text": message["text"], "close": count > 3})
    Group("log").discard("websocket.send!x")
    return len(message.content)


@enforce_ordering()
@channel_session
def receive_with_parentheses(message: Message) -> None:
    """See above."""
    del message.channel_session["room"]


@http_session_user
@http_session
@channel_and_http_session
@channel_and_http_session_user_from_http
def with_everything(message: Message, **kwargs: str) -> None:
    """See above."""
    if message.http_session is not None and "seen" not in message.http_session:
        message.http_session["seen"] = True


called: int = receive(Message({}, "websocket.receive", None), "tea", count=1)
kept: Callable[[Message, str], None] = connect


def elsewhere(message: Message) -> None:
    """A message that no client sent."""
    if message.reply_channel is None:
        raise ConsumeLater
    Channel("jobs").send({"reply_channel": message.reply_channel.name, "parts": [1, b"2", None]}, delay=5)


@consumer(autoretry_for=(OperationalError,), max_retries=3, bind=True)
def bound(task: Task[Any, Any], message: Message) -> None:
    """The task comes first."""
    raise task.retry(countdown=1)


class OwnPagesOnly(BaseOriginValidator):
    """A validator of one's own."""

    def validate_origin(self, message: Message, origin: str) -> bool:
        return origin == "https://example.com"


@OwnPagesOnly
def guarded(message: Message) -> None:
    """Guarded by it."""


@consumer(rate_limit="10/s")
class Chat(WebsocketConsumer):
    """Named groups of the route are arguments of the methods."""

    http_user = True
    strict_ordering = True
    groups = ["everybody"]

    def connection_groups(self, room: str) -> list[str]:
        return [f"chat-{room}"]

    @allowed_hosts_only
    def connect(self, message: Message, room: str) -> None:
        if message.user.is_authenticated:
            super().connect(message, room=room)
        else:
            self.close(4001, "log in")

    def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:  # noqa: A002
        self.send(text=f"{self.path} {self.kwargs['room']} {text}")
        self.message.reply_channel.send({"bytes": bytes or b""})
        self.group_send("everybody", text=self.message.user.get_username())

    def disconnect(self, message: Message, room: str) -> None:
        message.channel_session.flush()

    def get_handler(self, message: Message, **kwargs: Any) -> Callable[..., Any]:
        return super().get_handler(message, **kwargs)


class Json(JsonWebsocketConsumer):
    """Frames are JSON."""

    channel_session_user = True
    method_mapping = {**JsonWebsocketConsumer.method_mapping, "jobs": "job"}

    def connect(self, message: Message, multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
        multiplexer.send({"stream": multiplexer.stream})

    def receive(self, content: dict[str, Any], multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
        if "text" not in content:
            raise DenyConnection
        multiplexer.group_send("everybody", multiplexer.stream, content)
        self.send({"said": content}, close=True)

    def job(self, message: Message, **kwargs: Any) -> None:
        """Handle a message of another channel."""

    @classmethod
    def encode_json(cls, content: Any) -> str:
        return super().encode_json(content)


class Streams(WebsocketDemultiplexer):
    """Several of them on one socket."""

    groups = ("everybody",)
    consumers = {"json": Json, "function": elsewhere}


class Handler(AsgiHandler):
    """Django, changed."""

    def get_response(self, request: HttpRequest) -> HttpResponse:
        assert isinstance(request, AsgiRequest)
        request.reply_channel.send({"status": 200, "content": b""})
        return HttpResponse(request.message.channel.name)


class Views(ViewConsumer):
    """Answers with it."""

    handler_class = Handler


rooms = [
    route("websocket.connect", connect, path=r"^/(?P<room>\w+)/$"),
    route("websocket.receive", receive),
    route(["websocket.disconnect", "http.disconnect"], "shop.consumers.gone", ordered=False),
    route("jobs", bound),
    route("websocket.connect", guarded),
]
channel_routing = [
    route_class(Chat, path=r"^/chat/(?P<room>\w+)/$"),
    Json.as_route({"http_user": True}, path="^/json/$"),
    route_class(Streams),
    include(rooms, path="^/rooms"),
    include("shop.routing.rooms"),
    route("http.request", Views()),
]
layer_name: str = channel_layers["default"].alias
