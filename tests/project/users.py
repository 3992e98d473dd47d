"""Sockets of users that join by themselves, delayed messages, and the views that act on both."""

from __future__ import annotations

import json
from typing import Any

from celery import signals
from django.contrib.auth import get_user_model
from django.contrib.auth.views import LogoutView
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from channelsq import Channel, Group, User, delayed, route
from channelsq.auth import channel_session_user, channel_session_user_from_http, log_in
from channelsq.exceptions import DenyConnection
from channelsq.generic.websockets import JsonWebsocketConsumer
from channelsq.message import Message
from channelsq.sessions import channel_session
from tests.project import members
from tests.project.records import record, wait_for_go


def _named(name: str) -> User:
    return User(get_user_model().objects.get(username=name))


# -- views ------------------------------------------------------------------------------------------


def send(request: HttpRequest, name: str, text: str) -> JsonResponse:
    """Send a text to a user's sockets."""
    _named(name).send({"text": text})
    return JsonResponse({})


def sockets(request: HttpRequest, name: str) -> JsonResponse:
    """Return the number of a user's sockets."""
    return JsonResponse({"sockets": len(_named(name).sockets())})


def disconnect(request: HttpRequest, name: str) -> JsonResponse:
    """Close a user's sockets."""
    _named(name).disconnect(4001, "enough")
    return JsonResponse({})


def password(request: HttpRequest, name: str, end: str) -> JsonResponse:
    """Set a user's password in a transaction that is committed or rolled back; or save the user with the same one."""
    try:
        with transaction.atomic():
            user = get_user_model().objects.get(username=name)
            if end != "same":
                user.set_password("another")
            user.first_name = end
            user.save()
            if end == "rollback":
                raise InterruptedError
    except InterruptedError:
        pass
    return JsonResponse({})


urlpatterns = [
    path("log-in/<slug:name>/", members.log_in),
    path("log-out/", LogoutView.as_view(next_page="/")),
    path("send/<slug:name>/<slug:text>/", send),
    path("sockets/<slug:name>/", sockets),
    path("disconnect/<slug:name>/", disconnect),
    path("password/<slug:name>/<slug:end>/", password),
]


# -- consumers of users' sockets -----------------------------------------------------------------------


@channel_session_user_from_http
def connect(message: Message) -> None:
    """Accept everybody."""
    message.reply_channel.send({"text": f"welcome {message.user.get_username() or 'stranger'}"})


@channel_session_user_from_http
def refuse(message: Message, way: str) -> None:
    """Refuse everybody, some of them while the consumer runs on."""
    if way == "denied":
        raise DenyConnection
    message.reply_channel.send({"close": True}, immediately=way == "at-once")
    if way == "at-once":
        wait_for_go("refused")
    record("refused", way)


class Page(JsonWebsocketConsumer):
    """A generic consumer that knows the browser's user."""

    http_user = True

    def connect(self, message: Message, **kwargs: Any) -> None:
        message.reply_channel.send({"text": f"welcome {message.user.get_username() or 'stranger'}"})


@channel_session
def connect_anonymous(message: Message) -> None:
    """Accept without a look at the user."""
    message.reply_channel.send({"text": "welcome stranger"})


@channel_session_user
def log_in_later(message: Message) -> None:
    """Log the user in that the frame names."""
    log_in(message, get_user_model().objects.get(username=message["text"]))
    message.reply_channel.send({"text": f"hello {message.user.get_username()}"})


# -- consumers of delayed messages -----------------------------------------------------------------------


def join(message: Message) -> None:
    """Let the socket join a group."""
    Group("delayed").add(message.reply_channel)
    message.reply_channel.send({"text": "joined"})


def receive(message: Message) -> None:
    """Send later what the page asks for, or cancel that: ``{"to": …, "delay": seconds}`` or ``{"cancel": id}``."""
    asked = json.loads(message["text"])
    if "cancel" in asked:
        message.reply_channel.send({"text": json.dumps({"cancelled": delayed.cancel(asked["cancel"])})})
        return
    text = json.dumps({"late": asked["to"]})
    if asked["to"] == "group":
        handle = Group("delayed").send({"text": text}, delay=asked["delay"])
    elif asked["to"] == "me":
        handle = message.reply_channel.send({"text": text}, delay=asked["delay"])
    else:
        again = {"reply_channel": message.reply_channel.name, "text": text, "name": asked["to"]}
        handle = Channel("users.late").send(again, delay=asked["delay"])
    message.reply_channel.send({"text": json.dumps({"sent": handle.id})})
    if asked.get("fails"):
        record("failing", handle.id)
        raise ValueError("on purpose")


def late(message: Message) -> None:
    """Answer late, and record the keys of the message."""
    record("late", f"{message['name']} {sorted(message.keys())}")
    if message["name"].startswith("waits"):
        wait_for_go(message["name"])
    message.reply_channel.send({"text": message["text"]})


@signals.worker_ready.connect
def _say_ready(**kwargs: object) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO


channel_routing = [
    route("websocket.connect", connect, path="^/users/$"),
    route("websocket.connect", refuse, path=r"^/refused/(?P<way>[-\w]+)/$"),
    Page.as_route(path="^/page/$"),
    route("websocket.connect", connect_anonymous, path="^/later/$"),
    route("websocket.receive", log_in_later, path="^/later/$"),
    route("websocket.connect", join, path="^/delayed/$"),
    route("websocket.receive", receive, path="^/delayed/$"),
    route("users.late", late),
]
