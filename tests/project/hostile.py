"""Consumers, views and receivers that raise what should end or block their worker, and consumers that it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

from billiard import current_process
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import current_task, signals
from celery.exceptions import WorkerShutdown, WorkerTerminate
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from channelsq import consumer
from channelsq.message import Message
from channelsq.signals import consumer_finished, consumer_started
from tests.project.records import record


class Unprintable(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no str")

    __repr__ = __str__


class UnprintableAtAll(BaseException):
    """Ends the process of whoever shows it."""

    def __str__(self) -> str:
        sys.exit(4)

    __repr__ = __str__


class Unpicklable(Exception):
    """Cannot be sent to another process."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")


class CannotBeMadeAgain(Exception):
    """Can be pickled, but not read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


class Own(BaseException):
    """No Exception."""


def _recursion() -> NoReturn:
    _recursion()


def _too_much() -> None:
    bytearray(1 << 62)


#: The exception that each name stands for.
WAYS: dict[str, Callable[[], object]] = {
    "MemoryError": MemoryError,
    "real MemoryError": _too_much,
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(3),
    "SystemExit 0": lambda: SystemExit(0),
    "SystemError": SystemError,
    "RecursionError": _recursion,
    "StopIteration": StopIteration,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("some", [KeyboardInterrupt(), ValueError("no")]),
    "Own": Own,
    "Unprintable": Unprintable,
    "UnprintableAtAll": UnprintableAtAll,
    "Unpicklable": lambda: Unpicklable(object()),
    "CannotBeMadeAgain": lambda: CannotBeMadeAgain(1, 2),
    "WorkerShutdown": lambda: WorkerShutdown(0),
    "WorkerTerminate": lambda: WorkerTerminate(1),
    "WorkerLostError": lambda: WorkerLostError("of another task"),
    "TimeLimitExceeded": lambda: TimeLimitExceeded(1),
    "Terminated": lambda: Terminated(15),
}


def fail_with(way: str) -> NoReturn:
    """Raise what ``way`` names."""
    error = WAYS[way]()
    assert isinstance(error, BaseException)
    raise error


def hostile(message: Message) -> None:
    """Fails as it is told to."""
    assert message.reply_channel is not None
    message.reply_channel.send({"text": "must not be sent"})
    fail_with(message["way"])


def _bound(task: Any, message: Message) -> None:
    assert current_task.name == task.name
    hostile(message)


#: The same with an option each.
bound = consumer(bind=True)(_bound)
once = consumer(at_most_once=True)(lambda message: hostile(message))
rated = consumer(rate_limit="1000/s")(lambda message: hostile(message))


# -- receivers, which are there if TEST_HOSTILE_RECEIVERS is set --------------------------------------


def quiet(message: Message) -> None:
    """Does nothing, but receivers of signals raise what it is told to have raised, at the moment ``at``."""
    if message["at"] in ("failure", "retry"):
        raise LookupError("this one fails")


_told: dict[str, Any] = {}


def _raise_at(moment: str) -> Callable[..., None]:
    def receiver(sender: Any = None, **kwargs: Any) -> None:
        args = kwargs.get("args") or getattr(kwargs.get("request"), "args", None)
        if args and isinstance(args[1], dict) and "at" in args[1]:
            _told["content"] = args[1]
        content = _told.get("content", {})
        if content.get("at") == moment and getattr(sender, "name", "tests.project.hostile.quiet").endswith("quiet"):
            fail_with(content["way"])

    return receiver


if os.environ.get("TEST_HOSTILE_RECEIVERS"):
    for _signal, _moment in (
        (signals.task_received, "received"),
        (signals.task_prerun, "prerun"),
        (signals.task_postrun, "postrun"),
        (signals.task_success, "success"),
        (signals.task_failure, "failure"),
    ):
        _signal.connect(_raise_at(_moment), weak=False)
    consumer_started.connect(_raise_at("started"), sender=quiet, weak=False)
    consumer_finished.connect(_raise_at("finished"), sender=quiet, weak=False)


# -- views --------------------------------------------------------------------------------------------


def view(request: HttpRequest, way: str) -> HttpResponse:
    """Fails as it is told to."""
    fail_with(way)


async def async_view(request: HttpRequest, way: str) -> HttpResponse:
    """The same, in an event loop."""
    await asyncio.sleep(0)
    fail_with(way)


def stream(request: HttpRequest, way: str) -> HttpResponseBase:
    """Fails after its first part."""

    def parts() -> Iterator[bytes]:
        yield b"first"
        fail_with(way)

    return StreamingHttpResponse(parts())


def async_stream(request: HttpRequest, way: str) -> HttpResponseBase:
    """The same, in an event loop."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        fail_with(way)

    return StreamingHttpResponse(parts())


# -- what a worker ends -------------------------------------------------------------------------------


def lasts(message: Message) -> None:
    """Takes as long as it is told to, and writes down what comes of it."""
    number = message["number"]
    record("lasts", f"begin {number} {os.getpid()}")
    assert message.reply_channel is not None
    message.reply_channel.send({"text": f"answer {number}"})
    try:
        time.sleep(message["seconds"])
    except BaseException:
        record("lasts", f"interrupted {number}")
        raise
    record("lasts", f"end {number}")


@consumer(time_limit=2)
def lasts_limited(message: Message) -> None:
    """The same, for two seconds at most."""
    lasts(message)


def leaves_at_once(message: Message) -> None:
    """Ends its process without a word."""
    record("leaves", message.id)
    os._exit(message["code"])


def kills_process(message: Message) -> None:
    """Ends its process as it is told to, or answers."""
    record("kills-process", f"{message['way']} {message.id} {os.getpid()}")
    if message["way"] == "segfault":
        ctypes.string_at(0)
    elif message["way"] == "exit":
        os._exit(message.get("code", 0))
    elif message["way"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif message["way"] == "grow":
        _grown.append(bytearray(64 << 20))
        _grown[-1][:] = b"x" * len(_grown[-1])
    assert message.reply_channel is not None
    message.reply_channel.send({"pid": os.getpid(), "number": message["number"]})


_grown: list[bytearray] = []


@consumer(time_limit=2)
def limited_answer(message: Message) -> None:
    """Answers with where it runs, and then takes as long as it is told to."""
    assert message.reply_channel is not None
    pid, name = os.getpid(), current_process().name
    message.reply_channel.send({"pid": pid, "id": message.id, "process": name}, immediately=True)
    time.sleep(message["seconds"])
