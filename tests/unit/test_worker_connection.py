from __future__ import annotations

import itertools
from typing import Any

import kombu
import pytest
from kombu.exceptions import OperationalError
from kombu.utils import functional

from channelsq.worker.connection import ATTEMPTS, EVERY, Connection
from tests.support.ports import free_port


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, without sleeping."""
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

    with pytest.raises(OperationalError):
        connection.ensure_connection(errback, 1, callback=lambda: next(checks))
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
