from __future__ import annotations

import itertools
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.utils import functional

from channelsq.layers.kombu_broker.worker_connection import ATTEMPTS, EVERY, Connection, install
from tests.support.ports import free_port


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the durations of sleeps, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(functional, "sleep", slept.append)
    return slept


@pytest.fixture
def connection() -> kombu.Connection:
    """To where nothing listens."""
    return Connection(f"amqp://127.0.0.1:{free_port()}")


def test_it_tries_often_and_logs_seldom(connection: kombu.Connection, slept: list[float]) -> None:
    told: list[float] = []
    checks = itertools.count()

    def errback(error: Exception, interval: float) -> None:
        told.append(interval)

    def look() -> None:
        next(checks)

    with pytest.raises(OperationalError):
        connection.ensure_connection(errback, 1, callback=look)
    assert [seconds for seconds in slept if seconds] == [EVERY] * ATTEMPTS
    assert told == [EVERY] * 6  # failures 1, 2, 4, 8, 16, 32
    assert next(checks) >= ATTEMPTS  # so often a worker looks whether it shall stop


def test_a_copy_is_the_same(connection: kombu.Connection) -> None:
    assert type(connection.clone()) is Connection


def test_intervals_of_the_callers_own(connection: kombu.Connection, slept: list[float]) -> None:
    told: list[Any] = []
    with pytest.raises(OperationalError):
        connection.ensure_connection(lambda *args: told.append(args), 3, interval_start=7, interval_step=0)
    assert len(told) == 3
    assert sum(slept) == 21


@pytest.mark.parametrize(
    ("pool", "settings", "expected"),
    [
        ("threads", {}, False),
        ("celery.concurrency.thread:TaskPool", {}, False),
        ("threads", {"worker_enable_prefetch_count_reduction": True}, True),
        ("prefork", {}, True),
    ],
)
def test_threads_do_not_change_the_prefetch_count(pool: str, settings: dict[str, Any], expected: bool) -> None:
    with Celery("reduction", broker="memory://", set_as_current=False) as app:
        assert app.conf.broker_url == "memory://"  # as in a worker, the settings are there
        for name, value in settings.items():
            app.conf[name] = value
        install(type("Worker", (), {"app": app, "pool_cls": pool}))
        assert app.conf.worker_enable_prefetch_count_reduction is expected
