"""A server that is away is not tried by every caller."""

from __future__ import annotations

import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.shards import shard_health
from channelsq.layers.shards.shard_health import FIRST_PAUSE, LONGEST_PAUSE, TRYING, ShardHealth


class Time:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(shard_health, "monotonic", made)
    return made


def test_one_caller_tries_after_a_pause(clock: Time) -> None:
    health = ShardHealth()
    assert health.problem(0) is None
    health.failed(0, BrokerUnavailable("redis://a", "refused"))
    problem = health.problem(0)
    assert problem is not None
    assert problem.reason == "refused"
    assert health.problem(1) is None
    clock.now += FIRST_PAUSE
    assert health.problem(0) is None  # this caller may try
    assert health.problem(0) is not None
    clock.now += TRYING  # it has got no answer for as long as that
    assert health.problem(0) is None
    health.answered(0)
    assert health.problem(0) is None
    assert health.problem(0) is None


def test_the_pauses_grow(clock: Time) -> None:
    health = ShardHealth()
    pauses = []
    for _ in range(6):
        health.failed(0, BrokerUnavailable("redis://a", "refused"))
        began = clock.now
        while health.problem(0) is not None:
            clock.now += 0.25
        pauses.append(clock.now - began)
    assert pauses == [FIRST_PAUSE, 1.0, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE]
