"""Consumers that answer with what they saw."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import current_task, signals
from celery.exceptions import Ignore, Reject
from celery.worker import state
from django.db import connection

from channelsq import Group, consumer
from channelsq.exceptions import ConsumeLater
from channelsq.message import Message
from tests.project.records import record, wait_for_go

_seen: dict[str, int] = {}
_lock = threading.Lock()


def _count(message: Message) -> int:
    """Return how often this process has been handed messages with this one's key."""
    with _lock:
        _seen[message["key"]] = _seen.get(message["key"], 0) + 1
        return _seen[message["key"]]


def _answer(message: Message, **content: Any) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send({"pid": os.getpid(), "thread": threading.current_thread().name, **content})


def connect(message: Message) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send({"accept": True})
    Group("room").add(message.reply_channel)


def join(message: Message, room: str) -> None:
    """Open the socket, and add it to a group of its own room."""
    assert message.reply_channel is not None
    message.reply_channel.send({"accept": True})
    Group(f"room-{room}").add(message.reply_channel)


def disconnect(message: Message) -> None:
    record("disconnect", f"{message['path']} {message['code']}")


def http_disconnect(message: Message) -> None:
    record("http-disconnect", message["path"])


def receive(message: Message, room: str) -> None:
    _answer(message, text=f"{room}: {message['text']}")


def order_connect(message: Message, name: str) -> None:
    with _ordered(name, "connect"):
        assert message.reply_channel is not None
        message.reply_channel.send({"accept": True})


def order_receive(message: Message, name: str) -> None:
    with _ordered(name, message["text"]):
        pass


def order_disconnect(message: Message, name: str) -> None:
    with _ordered(name, "disconnect"):
        pass


@contextmanager
def _ordered(name: str, what: str) -> Iterator[None]:
    """Write down when the handling of a socket's message begins and ends, after a while."""
    record("order", f"{name} {what} begin")
    yield
    time.sleep(random.uniform(0, 0.03))
    record("order", f"{name} {what} end")


def count(message: Message) -> None:
    """Writes down that it ran, and answers."""
    record("count", message["text"])
    time.sleep(0.005)
    _answer(message, text=message["text"])


def deadly(message: Message) -> None:
    """Ends its process, as a fault in C code would, or answers with the message's id."""
    record("deadly", f"{message['text']} {message.id}")
    if message["text"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    _answer(message, text=message["text"])


def echo(message: Message) -> None:
    _answer(message, echo=message["value"])


def fail(message: Message) -> None:
    _answer(message, text="must not be sent")
    raise RuntimeError("this consumer always fails")


def leave(message: Message) -> None:
    sys.exit(3)


@consumer(autoretry_for=(ValueError,), retry_kwargs={"countdown": 0.1, "max_retries": 5})
def flaky(message: Message) -> None:
    tries = _count(message)
    _answer(message, tries=tries)
    if tries < 3:
        raise ValueError("not yet")


@consumer(bind=True, max_retries=5)
def bound(task: Any, message: Message) -> None:
    record("bound", message.id)
    _answer(message, retries=task.request.retries, task=task.name, id=message.id)
    if task.request.retries < 2:
        raise task.retry(countdown=0.1 if task.request.retries else message.get("countdown", 0.1))


def later(message: Message) -> None:
    tries = _count(message)
    _answer(message, tries=tries, keys=sorted(message.keys()))
    if tries < message["until"]:
        raise ConsumeLater


_slow: set[int] = set()


def slow(message: Message) -> None:
    """Take a while, or until a test says so, and answer with how many of these run at once."""
    _answer_now(message, started=True)
    _slow.add(id(message))
    running = len(_slow)
    if "until" in message:
        wait_for_go(message["until"])
    time.sleep(message["seconds"])
    _slow.remove(id(message))
    _answer(message, finished=True, running=running)


@consumer(at_most_once=True)
def once(message: Message) -> None:
    slow(message)


def _answer_now(message: Message, **content: Any) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send({"pid": os.getpid(), **content}, immediately=True)


def kills(message: Message) -> None:
    """Ends its process if it is told to."""
    record("kills", message["number"])
    if message["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)


@consumer(at_most_once=True)
def dies(message: Message) -> None:
    """Ends its process."""
    record("dies", message.id)
    os.kill(os.getpid(), signal.SIGKILL)


@consumer(time_limit=1)
def limited(message: Message) -> None:
    slow(message)


@consumer(rate_limit="1/m")
def rated(message: Message) -> None:
    _answer(message, value=message["value"])


def database(message: Message) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    _answer(message, connection=id(connection.connection))


def rejected(message: Message) -> None:
    raise Reject("not this one", requeue=False)


def ignored(message: Message) -> None:
    _answer(message, text="must not be sent")
    raise Ignore


prerun: list[str] = []


def _remember(sender: Any = None, **kwargs: Any) -> None:
    prerun.append(sender.name)


def tell_prerun(message: Message) -> None:
    """Answers with the tasks that ``task_prerun`` was sent for."""
    _answer(message, prerun=sorted(set(prerun)))


def listen(message: Message) -> None:
    """From now on ``task_prerun`` has a receiver, or none any more."""
    if message["on"]:
        signals.task_prerun.connect(_remember)
    else:
        signals.task_prerun.disconnect(_remember)
        prerun.clear()
    _answer(message)


@consumer(bind=True)
def request(task: Any, message: Message) -> None:
    """Answers with what Celery says about the task that is running."""
    _answer(
        message,
        id=task.request.id,
        message_id=message.id,
        current=current_task.request.id,
        called_directly=task.request.called_directly,
        args=list(task.request.args[:1]),
        hostname=task.request.hostname,
        routing_key=task.request.delivery_info["routing_key"],
        name=current_task.name,
    )


def books(message: Message) -> None:
    """Answers with Celery's books, in which this one message should be, and how often it was counted."""
    _answer(
        message,
        requests=len(state.requests),
        reserved=len(state.reserved_requests),
        active=[request.name for request in state.active_requests],
        total=state.total_count["tests.project.consumers.echo"],
    )


@signals.worker_ready.connect
def _say_so(**kwargs: Any) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO
