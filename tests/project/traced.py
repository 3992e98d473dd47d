"""A page and a socket that call tasks, some of which fail."""

from __future__ import annotations

import os
from typing import Any

from celery import shared_task, signals
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace
from opentelemetry.propagate import extract, inject

from channelsq import Channel, consumer, route
from channelsq.message import Message
from channelsq.sessions import channel_session
from channelsq.signals import worker_process_ready
from tests.project.records import record


@shared_task
def note(what: str) -> None:
    """An ordinary task."""
    record("notes", what)


def page(request: HttpRequest, number: int) -> HttpResponse:
    """A view that calls a task."""
    note.delay(f"page {number}")
    return HttpResponse("traced")


def failing_page(request: HttpRequest, number: int) -> HttpResponse:
    """A view that fails."""
    raise RuntimeError(f"page {number} failed")


def log_in(request: HttpRequest) -> HttpResponse:
    """Log a user in."""
    user, _ = User.objects.get_or_create(username="ann", email="ann@example.com")
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return HttpResponse("in")


urlpatterns = [
    path("pages/<int:number>/", page),
    path("failing/<int:number>/", failing_page),
    path("failing/<int:number>/\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{SNOWMAN}/", failing_page),
    path("login/", log_in),
]


@channel_session
def connect(message: Message) -> None:
    """Accept, and call a task."""
    inject(message.channel_session)
    message.reply_channel.send({"accept": True})
    note.delay("connect")


@channel_session
def receive(message: Message) -> None:
    """Call a task; or fail."""
    handshake = trace.get_current_span(extract(message.channel_session)).get_span_context()
    trace.get_current_span().add_link(handshake)
    text = message["text"]
    if text == "fail":
        raise RuntimeError("receive failed")
    note.delay(text)
    message.reply_channel.send({"text": text})


@consumer(time_limit=30)
def limited(message: Message) -> None:
    """Run in Celery's pool where that keeps time limits."""
    message.reply_channel.send({"accept": True})
    note.delay("limited")


@consumer(max_retries=2, bind=True)
def stubborn(task: Any, message: Message) -> None:
    """Succeed with the second try."""
    if not task.request.retries:
        raise task.retry(countdown=0.5)  # when this one has ended: OpenTelemetry tells runs apart by the id of the task
    message.reply_channel.send({"accept": True})


def raw(message: Message) -> None:
    """Answer a request without Django's views."""
    assert message.reply_channel is not None
    message.reply_channel.send({"status": 200, "content": b"raw"})
    Channel("onwards").send({"headers": message["headers"]})


def onwards(message: Message) -> None:
    """Get a message from another consumer."""
    record("notes", "onwards")


channel_routing = [
    route("http.request", raw, path=r"^/raw/$"),
    route("websocket.connect", limited, path=r"^/limited/$"),
    route("websocket.connect", stubborn, path=r"^/stubborn/$"),
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("onwards", onwards),
]


@receiver(worker_process_ready)
def _note_ready(**kwargs: object) -> None:
    record("process ready", os.getpid())


@signals.worker_ready.connect
def _say_ready(**kwargs: object) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO
