"""Messages of newer processes are read as far as possible; those that need a newer reader are logged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import pytest
import redis

from channelsq.core import wire_version
from channelsq.layers import BaseChannelLayer, RedisChannelLayer
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE
from channelsq.transport.dead_letter_store import DeadLetters
from tests.contract.conftest import MakeLayer
from tests.contract.test_foreign_content import on_brokers, publish, received
from tests.support.waiting import wait_until

PACKED = {"content_type": CONTENT_TYPE, "content_encoding": "binary"}
NEWER = {**PACKED, "headers": {"channelsq_needs": 99}}
HELLO = codec.dumps({"text": "hello", "channelsq.unheard": 1})


@pytest.fixture(autouse=True)
def teller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test told of its first message."""
    fresh = wire_version.Teller()
    monkeypatch.setattr(wire_version.teller, "_logged_at", fresh._logged_at)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "newer_wire"]


def dead(layer: Any) -> list[str]:
    """Return the reasons of messages of the layer that were set aside; only streams keep any."""
    if not isinstance(layer, RedisChannelLayer):
        return []
    with layer.open_connection() as connection:
        letters = DeadLetters(connection)
        return [letter.reason for letter in letters.all() if letter.queue.startswith(layer.queue_prefix)]


@pytest.mark.parametrize("pattern", ["jobs", "answers?", "answers!"])
def test_keys_that_nobody_knows_arrive(layer: BaseChannelLayer, unique: Any, pattern: str) -> None:
    channel = unique(pattern) if pattern == "jobs" else layer.new_channel(pattern)
    content = {"text": "hello", "unheard": {"of": [1, b"2"]}, "channelsq.unheard": None}
    layer.send(channel, content)
    assert received(layer, channel) == (channel, content)


def forms(channel: str, more: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The body of a message on a channel as a newer process writes it, with fields that nobody here knows."""
    if "!" in channel:
        return [("envelope", {"body": codec.dumps([[[channel], HELLO, None, None, "unheard", 5]]), **more})]
    if "?" in channel:
        return [("bare", {"body": HELLO, **more})]
    body = b"\x93\x92" + codec.dumps(channel) + HELLO + b"\x81\xa7unheard\x01" + b"\x81\xa7unheard\x01"
    return [("task", {"body": body, **more})]


@on_brokers
@pytest.mark.parametrize("pattern", ["jobs", "answers?", "answers!"])
def test_fields_that_nobody_knows_are_ignored(make_layer: MakeLayer, pattern: str) -> None:
    layer: Any = make_layer()
    channel = pattern if pattern == "jobs" else layer.new_channel(pattern)
    more = {**PACKED, "headers": {"unheard": 1, "channelsq_unheard": 2}}
    for _, message in forms(channel, more):
        publish(layer, channel, [message])
        assert received(layer, channel) == (channel, {"text": "hello", "channelsq.unheard": 1})


@on_brokers
@pytest.mark.parametrize("pattern", ["jobs", "answers?", "answers!"])
def test_what_needs_a_newer_process_is_told_of(
    make_layer: MakeLayer, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    layer: Any = make_layer()
    channel = pattern if pattern == "jobs" else layer.new_channel(pattern)
    publish(layer, channel, [NEWER | {"body": b"\x93newer"}] * 3)
    layer.send(channel, {"text": "for us"})
    assert received(layer, channel) == (channel, {"text": "for us"})
    assert layer.receive([channel]) == (None, None)
    (line,) = told(caplog)
    assert "needs wire version 99" in line
    assert "reads version 1: update this process" in line
    assert "Traceback" not in caplog.text


@on_brokers
def test_a_listener_that_is_too_old(make_layer: MakeLayer, caplog: pytest.LogCaptureFixture) -> None:
    layer: Any = make_layer()
    channel = layer.new_channel("answers!")
    heard: list[Any] = []

    def deliver(channels: Sequence[str], message: dict[str, Any], group: str | None) -> None:
        heard.append((list(channels), message, group))

    layer.send(channel, {"text": "first"})
    publish(layer, channel, [NEWER | {"body": b"\x93newer"}] * 3)
    publish(layer, channel, [{**PACKED, "body": codec.dumps([[[channel], HELLO, "room", None, "unheard"]])}])
    listener = layer.listen(channel.partition("!")[0] + "!", deliver)
    try:
        layer.send(channel, {"text": "last"})
        wait_until(lambda: len(heard) == 3, "what can be read", 30)
    finally:
        listener.stop()
    assert heard == [
        ([channel], {"text": "first"}, None),
        ([channel], {"text": "hello", "channelsq.unheard": 1}, "room"),
        ([channel], {"text": "last"}, None),
    ]
    assert len(told(caplog)) == 1
    assert "broker_lost" not in {getattr(record, "action", "") for record in caplog.records}


@pytest.fixture
def streams(redis_url: str, unique: Any) -> Iterator[RedisChannelLayer]:
    layer = RedisChannelLayer(url=redis_url.replace("redis:", "redis-streams:"), prefix=unique("newer"))
    yield layer
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"*{layer.prefix}*"):
            client.delete(key)
    layer.close()


@pytest.mark.redis
@pytest.mark.parametrize("pattern", ["jobs", "answers?", "answers!"])
def test_on_streams_it_is_a_dead_letter(
    streams: RedisChannelLayer, redis_url: str, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    channel = pattern if pattern == "jobs" else streams.new_channel(pattern)
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(f"stream:{streams.queue(channel).name}", {"m": msgpack.packb([2, "new", {"form": 1}]), "x": 60_000})
    streams.send(channel, {"text": "for us"})
    assert received(streams, channel) == (channel, {"text": "for us"})
    assert len(told(caplog)) == 1
    (reason,) = dead(streams)
    assert "needs wire version 2" in reason
