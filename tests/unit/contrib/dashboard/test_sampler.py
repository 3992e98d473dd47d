"""The sampler: one at a time, none without a page, and none that a dead worker could keep."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import override_settings

from channelsq.asgi import ChannelLayerWrapper
from channelsq.contrib.dashboard.routing import channel_routing
from channelsq.contrib.dashboard.sampler import MEMORY, MOST_POINTS, TURN, Sampler
from channelsq.layers.groups.records import RecordStore
from channelsq.redis_core.operations import ask
from tests.support.layers import installed, wrapped
from tests.support.waiting import wait_until


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(channel_routing)
    with installed(layer):
        yield layer


@pytest.fixture
def records(layer: ChannelLayerWrapper) -> RecordStore:
    found = layer.channel_layer.records
    assert found is not None
    return found


def test_of_many_workers_one_takes_the_sample(layer: ChannelLayerWrapper, records: RecordStore) -> None:
    workers = 8
    together = threading.Barrier(workers)

    def look(_: int) -> bool:
        together.wait(10)
        return Sampler(layer, records).sample_if_due()

    with ThreadPoolExecutor(workers) as pool:
        for _ in range(20):
            assert list(pool.map(look, range(workers))).count(True) == 1
            records.delete(TURN)
    assert len(Sampler(layer, records).history()) == 20


def test_the_turn_of_a_dead_worker_ends(layer: ChannelLayerWrapper, records: RecordStore) -> None:
    records.write(TURN, {"by": b"a worker that was killed"}, 0.2)
    sampler = Sampler(layer, records)
    assert not sampler.sample_if_due()
    wait_until(sampler.sample_if_due, "a sample", timeout=5)


def test_samples_keep_their_distance(layer: ChannelLayerWrapper, records: RecordStore) -> None:
    sampler = Sampler(layer, records)
    with override_settings(CHANNEL_DASHBOARD={"every": 0.3}):
        for _ in range(4):
            wait_until(sampler.sample_if_due, "a sample", timeout=5)
    times = [each["time"] for each in sampler.history()]
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(times))


def test_a_sample_that_fails_ends_its_turn(
    layer: ChannelLayerWrapper, records: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(layer, records)
    with override_settings(CHANNEL_DASHBOARD={"every": 0.1}):
        with monkeypatch.context() as patch:
            patch.setattr(layer.channel_layer, "group_channels", lambda group: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                sampler.sample_if_due()
        wait_until(sampler.sample_if_due, "a sample", timeout=5)


def test_a_sample_leaves_no_message_behind(layer: ChannelLayerWrapper, records: RecordStore) -> None:
    assert Sampler(layer, records).sample_if_due()
    assert {channel: layer.channel_layer.depth(channel) for channel in ("channelsq.delayed", "websocket.receive")} == {
        "channelsq.delayed": 0,
        "websocket.receive": 0,
    }


def test_the_memory_of_another_version_is_ignored(layer: ChannelLayerWrapper, records: RecordStore) -> None:
    records.write(MEMORY, {"samples": b"not compressed"}, 60)
    sampler = Sampler(layer, records)
    assert sampler.history() == []
    assert sampler.sample_if_due()
    assert len(sampler.history()) == 1


def test_the_memory_is_bounded(layer: ChannelLayerWrapper, records: RecordStore) -> None:
    sampler = Sampler(layer, records)
    sampler.sample_if_due()
    memory = sampler._recall()
    memory.points = [{**memory.points[0], "time": memory.points[0]["time"] - number / 10} for number in range(400)]
    sampler._remember(memory)
    records.delete(TURN)
    assert sampler.sample_if_due()
    assert len(sampler.history()) == MOST_POINTS


@pytest.mark.redis
def test_on_redis_the_turn_expires_by_the_clock_of_redis(redis_url: str) -> None:
    """A worker whose clock is wrong takes no turn from another."""
    from channelsq.layers import RedisChannelLayer
    from tests.support.demo import fresh_redis

    inner = RedisChannelLayer(url=fresh_redis(redis_url))
    layer = ChannelLayerWrapper(inner, "default", channel_routing)
    records = inner.records
    assert records is not None
    with installed(layer):
        sampler = Sampler(layer, records)
        assert sampler.sample_if_due()
        assert not sampler.sample_if_due()
        (left,) = records.groups.carry_out(lambda: ask(("PTTL", records._key(TURN))))  # type: ignore[attr-defined]
        assert 0 < left <= 1600
    inner.flush()
    inner.close()
