"""Warnings of a worker about consumers whose time limits it cannot keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from channelsq import consumer, route
from channelsq.worker.commands.consumer_limits import problems
from tests.support.sources import app_with_source


@consumer(time_limit=5)
def hard(message: Any) -> None: ...


@consumer(soft_time_limit=5)
def soft(message: Any) -> None: ...


def free(message: Any) -> None: ...


EVERY = {"default": ["hard", "soft", "free"]}


@pytest.fixture
def app() -> Iterator[Celery]:
    with app_with_source([route("hard", hard), route("soft", soft), route("free", free)]) as (app, _):
        yield app


def test_a_pool_of_processes_keeps_them(app: Celery) -> None:
    assert [*problems(app, EVERY, pool_keeps_limits=True)] == []


def test_another_pool_does_not(app: Celery) -> None:
    (problem,) = problems(app, EVERY, pool_keeps_limits=False)
    assert f"({__name__}.hard, {__name__}.soft)" in problem
    assert "-P prefork" in problem
    assert [*problems(app, {"default": ["free"]}, pool_keeps_limits=False)] == []


def test_they_are_handed_to_a_queue_that_the_worker_does_not_read(app: Celery) -> None:
    app.conf.task_routes = {f"{__name__}.soft": {"queue": "reports"}}
    app.amqp.queues.select(["reports"])
    (problem,) = problems(app, EVERY, pool_keeps_limits=True)
    assert f"({__name__}.hard) are handed to the queue 'celery'" in problem
    queues: Any = app.amqp.queues
    queues._consume_from = {}  # as -Q with channels alone has it
    assert len([*problems(app, EVERY, pool_keeps_limits=True)]) == 2
