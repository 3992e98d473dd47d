"""Consumers and ordinary tasks that write down what they do, for tests that cut connections meanwhile."""

from __future__ import annotations

import os
import time

from celery import shared_task, signals

from channelsq import consumer, route
from channelsq.message import Message
from tests.project.records import record, recorded


def _meet(name: str, mine: str) -> None:
    """Write down that one is here, and wait for another that runs at the same time."""
    record(name, mine)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(set(recorded(name))) >= 2:
            record(f"{name}-met", mine)
            return
        time.sleep(0.01)


def work(message: Message) -> None:
    """Take the seconds that it is told to."""
    record("begun", f"message {message['number']}")
    time.sleep(message["seconds"])
    record("done", f"message {message['number']}")


@consumer(acks_late=True)
def meet(message: Message) -> None:
    """Succeed if another runs at the same time."""
    _meet(message["name"], str(message["number"]))


@shared_task(name="storm.work", acks_late=True)
def work_task(number: int, seconds: float) -> None:
    """The same as an ordinary task."""
    record("begun", f"task {number}")
    time.sleep(seconds)
    record("done", f"task {number}")


@shared_task(name="storm.meet", acks_late=True)
def meet_task(name: str, number: int) -> None:
    """The same as an ordinary task."""
    _meet(name, f"{number} {os.getpid()}")


channel_routing = [route("work", work), route("meet", meet)]


@signals.worker_ready.connect
def _say_so(**kwargs: object) -> None:
    print("ready.")  # noqa: T201 - Celery's own word for it is only in its log at INFO
