"""Messages that wait for their time, or for a rate limit."""

from __future__ import annotations

from collections.abc import Iterator
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from channelsq.worker.sources import held_messages
from channelsq.worker.sources.delayed import Delayed
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _clean_books() -> Iterator[None]:
    held_messages.clear()
    yield
    held_messages.clear()


def request(identity: str, task: Any = None) -> Any:
    task = task or SimpleNamespace(rate_limit=None)
    return SimpleNamespace(id=identity, name="consumer", task=task)


def ids(requests: list[Any]) -> list[str]:
    return [each.id for each in requests]


def test_they_come_in_the_order_of_their_times() -> None:
    delayed, now = Delayed(), time()
    for name, due in (("c", 3), ("a", 1), ("far", 1000), ("b", 2), ("a too", 1)):
        delayed.add(request(name), now - 10 + due)
    assert sorted(held_messages.scheduled) == ["a", "a too", "b", "c", "far"]
    assert ids(delayed.due()) == ["a", "a too", "b", "c"]
    assert list(held_messages.scheduled) == ["far"]
    assert delayed.due() == []
    assert len(delayed) == 1
    assert ids(delayed.clear()) == ["far"]
    assert (len(delayed), held_messages.scheduled) == (0, {})


def test_how_long_to_wait_for_the_next() -> None:
    delayed = Delayed()
    assert delayed.seconds(1.0) == 1.0
    delayed.add(request("later"), time() + 100)
    assert delayed.seconds(1.0) == 1.0
    delayed.add(request("soon"), time() + 0.5)
    assert 0.2 < delayed.seconds(1.0) <= 0.5
    delayed.add(request("now"), time() - 1)
    assert 0 < delayed.seconds(1.0) < 0.01


def test_without_a_limit_nothing_waits() -> None:
    delayed = Delayed()
    assert [delayed.limited_until(request(str(number))) for number in range(100)] == [0.0] * 100


def test_a_rate_limit() -> None:
    delayed, task = Delayed(), SimpleNamespace(rate_limit="10/s")
    assert delayed.limited_until(request("a", task)) == 0.0
    until = delayed.limited_until(request("b", task))
    assert 0.0 < until - time() <= 0.1
    assert delayed.limited_until(SimpleNamespace(id="c", name="another", task=task)) == 0.0  # type: ignore[arg-type]
    wait_until(lambda: time() >= until, "its time has come")
    assert delayed.limited_until(request("b", task)) == 0.0


@pytest.mark.parametrize("limit", ["0", "0/s", "0.0/m", 0, 0.0, "-1", "-5/m", -1, "nan", float("nan")])
def test_a_limit_of_nothing_is_none(limit: object) -> None:
    """As with Celery, where Flower's form and ``control rate_limit NAME 0`` take a limit away."""
    delayed, task = Delayed(), SimpleNamespace(rate_limit=limit)
    assert [delayed.limited_until(request(str(number), task)) for number in range(100)] == [0.0] * 100


def test_a_message_that_waits_for_a_limit_soon_asks_again() -> None:
    """An operator who takes ``1/h`` back does not wait for an hour."""
    delayed, task = Delayed(), SimpleNamespace(rate_limit="1/h")
    assert delayed.limited_until(request("a", task)) == 0.0
    assert 0.5 < delayed.limited_until(request("b", task)) - time() <= 1.0


def test_a_limit_that_is_changed_holds_at_once() -> None:
    delayed, task = Delayed(), SimpleNamespace(rate_limit="1/h")
    assert delayed.limited_until(request("a", task)) == 0.0
    assert delayed.limited_until(request("b", task)) > time()
    task.rate_limit = "1000/s"
    assert delayed.limited_until(request("b", task)) == 0.0
    task.rate_limit = "1/h"
    assert delayed.limited_until(request("c", task)) == 0.0  # a new bucket begins full
    assert delayed.limited_until(request("d", task)) > time()
    task.rate_limit = None
    assert delayed.limited_until(request("d", task)) == 0.0
