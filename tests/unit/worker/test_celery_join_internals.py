"""Consumers may wait for a task's result in a worker, and tasks may not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, _state
from celery.result import AsyncResult, allow_join_result

from channelsq.worker.celery_join_internals import let_consumers_wait
from channelsq.worker.running.execution import run_consumer
from tests.support.layers import message_on, replies, wrapped

state: Any = _state  # celery-types leaves out most of it


@pytest.fixture(autouse=True)
def _flag() -> Iterator[None]:
    before = state.task_join_will_block()
    yield
    state._set_task_join_will_block(before)


@pytest.fixture
def result() -> Iterator[AsyncResult[Any]]:
    with Celery("results", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.backend.store_result("1", 42, "SUCCESS")
        yield app.AsyncResult("1")


def answer_of_a_consumer(result: AsyncResult[Any]) -> Any:
    layer = wrapped()
    message = message_on(layer)

    def consumer(message: Any) -> None:
        message.reply_channel.send({"text": str(result.get(timeout=5))})

    run_consumer(consumer, message, "consumer")
    return replies(layer, message)


def test_a_consumer_may_wait_and_a_task_may_not(result: AsyncResult[Any]) -> None:
    state._set_task_join_will_block(True)  # as Celery does when it makes a pool of threads
    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        answer_of_a_consumer(result)
    let_consumers_wait()
    assert answer_of_a_consumer(result) == [{"text": "42"}]
    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        result.get()
    refused: list[bool] = []
    thread = threading.Thread(target=lambda: refused.append(bool(state.task_join_will_block())))
    thread.start()
    thread.join(10)
    assert refused == [True]
    with allow_join_result():
        assert result.get() == 42
    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        result.get()


def test_where_tasks_may_wait_they_still_may(result: AsyncResult[Any]) -> None:
    state._set_task_join_will_block(False)  # gevent
    let_consumers_wait()
    assert result.get() == 42
    assert answer_of_a_consumer(result) == [{"text": "42"}]
