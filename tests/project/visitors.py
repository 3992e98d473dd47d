"""Consumers, views and tasks that show what their context holds, and some that leave things in it.

TEST_SIGNALS names the receivers that there are: ``celery`` for those around a task, ``consumer`` for the consumer's.
"""

from __future__ import annotations

import decimal
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from celery import shared_task, signals
from django.core.cache import caches
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import get_script_prefix, get_urlconf, path, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from channelsq import Channel, consumer, route
from channelsq.message import Message
from channelsq.signals import consumer_finished, consumer_started
from tests.project.records import record

_span: ContextVar[str] = ContextVar("tests_span", default="")


def look() -> dict[str, Any]:
    """Return what the context holds."""
    return {
        "language": translation.get_language(),
        "zone": timezone.get_current_timezone_name(),
        "urlconf": get_urlconf(),
        "prefix": get_script_prefix(),
        "precision": decimal.getcontext().prec,
        "span": _span.get(),
    }


def stain() -> None:
    """Leave something in everything that :func:`look` looks at."""
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    set_urlconf("tests.project.urls")
    set_script_prefix("/stained/")
    decimal.getcontext().prec = 5
    _span.set("stained")


def _answer(message: Message, **content: Any) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send(content)


def looks(message: Message) -> None:
    """Answer with the context; with the thread's cache and connection, too, if that is asked for."""
    answer = {**look(), "id": message.id}
    if message.get("more"):
        connection.ensure_connection()
        answer.update(cache=id(caches["default"]), connection=id(connection.connection))
    _answer(message, **answer)


def stains(message: Message) -> None:
    """Stain the context, and fail if that is asked for."""
    stain()
    if message.get("fail"):
        raise RuntimeError("this consumer was told to fail")
    _answer(message, **look())


@consumer(bind=True, max_retries=1)
def tries_twice(task: Any, message: Message) -> None:
    """Stain the context at the first try, look at it at the second."""
    if not task.request.retries:
        stain()
        raise task.retry(countdown=0)
    _answer(message, **look())


def queries(message: Message) -> None:
    """Answer with how many queries are logged after three."""
    _three_queries()
    _answer(message, queries=len(connection.queries))


def _three_queries() -> None:
    with connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT 1")


def connects(message: Message) -> None:
    _answer(message, accept=True)


def receives(message: Message) -> None:
    """Answer a frame with the language."""
    _answer(message, text=str(translation.get_language()))


@shared_task(name="visitors.look")
def look_task(reply_channel: str) -> None:
    Channel(reply_channel).send(look())


@shared_task(name="visitors.stain")
def stain_task(reply_channel: str) -> None:
    stain()
    Channel(reply_channel).send(look())


channel_routing = [
    route("look", looks),
    route("stain", stains),
    route("retry", tries_twice),
    route("queries", queries),
    route("websocket.connect", connects),
    route("websocket.receive", receives),
]


# -- views


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(translation.get_language())


def stained_page(request: HttpRequest) -> HttpResponse:
    stain()
    return HttpResponse("stained")


def look_page(request: HttpRequest) -> JsonResponse:
    return JsonResponse(look())


def queries_page(request: HttpRequest) -> HttpResponse:
    _three_queries()
    return HttpResponse(str(len(connection.queries)))


def stream(request: HttpRequest) -> HttpResponseBase:
    """Stream the language, five times."""

    def parts() -> Iterator[str]:
        for _ in range(5):
            yield f"{translation.get_language()} "

    async def async_parts() -> AsyncIterator[str]:
        for part in parts():
            yield part

    return StreamingHttpResponse(async_parts() if "async" in request.GET else parts())


async def async_page(request: HttpRequest) -> HttpResponse:
    """Answer with the language, and leave something behind."""
    language = translation.get_language()
    stain()
    return HttpResponse(language)


urlpatterns = [
    path("", page),
    path("stain/", stained_page),
    path("look/", look_page),
    path("queries/", queries_page),
    path("stream/", stream),
    path("async/", async_page),
]


# -- signals


def _begin(task_id: str = "", **kwargs: Any) -> None:
    _span.set(f"span of {task_id}")


def _tell(name: str) -> Callable[..., None]:
    def told(**kwargs: Any) -> None:
        record("signals", f"{name}: {_span.get()}")

    return told


_receivers: list[tuple[Any, Callable[..., None]]] = [
    (request_started, _tell("request_started")),
    (request_finished, _tell("request_finished")),
]
if os.environ.get("TEST_SIGNALS") == "celery":
    _receivers += [
        (signals.task_prerun, _begin),
        (signals.task_success, _tell("task_success")),
        (signals.task_failure, _tell("task_failure")),
        (signals.task_postrun, _tell("task_postrun")),
    ]
elif os.environ.get("TEST_SIGNALS") == "consumer":
    _receivers += [
        (consumer_started, _begin),
        (consumer_finished, _tell("consumer_finished")),
        (signals.task_failure, _tell("task_failure")),
    ]
else:
    _receivers = []
for _signal, _receiver in _receivers:
    _signal.connect(_receiver, weak=False)


@signals.worker_ready.connect
def _say_so(**kwargs: Any) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO
