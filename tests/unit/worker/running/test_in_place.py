"""Threads for live tasks in place, beside an embedded worker."""

from __future__ import annotations

import logging
import threading

import pytest

from channelsq.delivery.pending import held_here, pending_message_store
from channelsq.layers import InMemoryChannelLayer
from channelsq.worker.running import in_place
from channelsq.worker.running.in_place import MOST_WAITING, THREADS
from tests.support.waiting import wait_until


def test_tasks_run_in_threads_while_a_worker_consumes_the_layer() -> None:
    layer, other = InMemoryChannelLayer(), InMemoryChannelLayer()
    done: list[tuple[str, bool]] = []

    def work() -> None:
        done.append((threading.current_thread().name, held_here.get() is None))

    assert not in_place.submit(layer, work)
    in_place.begin(layer)
    try:
        with pending_message_store.holding():  # sends of the task do not wait for the consumer that has started it
            assert in_place.submit(layer, work)
            assert not in_place.submit(other, work)
            wait_until(lambda: done, "the task")
    finally:
        in_place.end(layer)
    assert done[0][0].startswith("channelsq-in-place")
    assert done[0][1]
    assert not in_place.submit(layer, work)
    in_place.end(layer)  # a repeated call is harmless


def test_a_failure_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    layer, done = InMemoryChannelLayer(), threading.Event()
    in_place.begin(layer)
    try:
        for _ in range(THREADS):
            assert in_place.submit(layer, lambda: 1 / 0)
        assert in_place.submit(layer, done.set)
        assert done.wait(10)
        wait_until(lambda: len(caplog.records) == THREADS, "the log of each failure")
    finally:
        in_place.end(layer)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * THREADS


def test_too_many_tasks_run_in_place() -> None:
    layer, go = InMemoryChannelLayer(), threading.Event()
    in_place.begin(layer)
    try:
        accepted = [in_place.submit(layer, lambda: go.wait(30)) for _ in range(THREADS + MOST_WAITING)]
        assert all(accepted)
        assert not in_place.submit(layer, go.set)
        go.set()
        wait_until(lambda: in_place.submit(layer, lambda: None), "room for another task")
    finally:
        go.set()
        in_place.end(layer)
