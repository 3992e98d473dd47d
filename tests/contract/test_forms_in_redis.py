"""All that processes share in Redis: keys, types, contents; see tests/unit/layers/wire/test_wire_forms.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis

from channelsq import __version__
from channelsq.layers import RedisChannelLayer
from channelsq.transport import dead_letters
from channelsq.transport.streams_channel import Channel
from tests.support.demo import fresh_redis

pytestmark = pytest.mark.redis

SOCKET = "websocket.send.p!a"
ANNOUNCED = f'{{"wire": 1, "channelsq": "{__version__}", "host": "{socket.gethostname()}", "pid": {os.getpid()}}}'


@pytest.fixture
def url(redis_url: str) -> str:
    return fresh_redis(redis_url)


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url, decode_responses=True) as made:
        yield made


@pytest.fixture
def layer(url: str) -> Iterator[RedisChannelLayer]:
    made = RedisChannelLayer(url=url)
    yield made
    made.close()


def held(client: Any, *left_out: str) -> dict[str, Any]:
    """Return the contents of Redis: of sets their members, of sorted sets these without their scores."""
    readers = {
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1),
        "string": client.get,
        "hash": client.hgetall,
        "stream": lambda key: [fields for _, fields in client.xrange(key)],
    }
    return {key: readers[client.type(key)](key) for key in client.scan_iter() if not key.startswith(left_out)}


def test_groups_and_processes(layer: RedisChannelLayer, client: Any) -> None:
    layer.group_add("room", SOCKET)
    presence = layer.presence
    assert presence is not None
    presence.beat("p", 30)
    presence.beat_worker("w@host", 30, {"channels": ["jobs"], "runs": "in threads"})
    presence.note("p", {SOCKET: "/"}, [])
    presence.claim("q", 30)
    presence.mark_dead("q")
    assert layer.begin("0a1b-2.0")
    assert held(client, "stream:") == {
        "channelsq:group:{room}": {SOCKET},
        "channelsq:group:{room}:expiry": [SOCKET],
        f"channelsq:member:{SOCKET}": {"room"},
        "channelsq:interfaces": {"p"},
        "channelsq:interface:p": ANNOUNCED,
        "channelsq:sockets:p": {SOCKET: "/"},
        "channelsq:sweep:q": "1",
        "channelsq:buried:q": "1",
        "channelsq:workers": {"w@host"},
        "channelsq:worker:w@host": ANNOUNCED[:-1] + ', "channels": ["jobs"], "runs": "in threads"}',
        "channelsq:begun": ["0a1b-2.0"],
    }


def test_what_the_process_before_this_one_has_written(layer: RedisChannelLayer, client: Any) -> None:
    """And keys and fields that nobody here knows."""
    presence = layer.presence
    assert presence is not None
    client.set("channelsq:interface:p", "1", px=30_000)
    client.sadd("channelsq:interfaces", "p", "dead")
    client.hset("channelsq:sockets:p", mapping={SOCKET: "/"})
    client.set("channelsq:unheard:p", "1")
    assert presence.dead() == ["dead"]
    assert not presence.beat("p", 30).unknown
    assert presence.some_sockets("p", 10) == {SOCKET: "/"}
    assert [(each.name, each.wire, each.version) for each in presence.announced()] == [("p", 1, "")]


def test_streams_leases_and_dead_letters(layer: RedisChannelLayer, client: Any, url: str) -> None:
    layer.send("jobs", {"text": "hello"})
    with layer.open_connection() as connection:
        channel: Any = connection.default_channel
        assert isinstance(channel, Channel)
        message = channel.basic_get("jobs")
        assert message is not None
        assert message.delivery_tag is not None
        consumer = channel.streams.consumer
        (group,) = client.xinfo_groups("stream:jobs")
        assert (group["name"], client.get(f"stream-lease:{consumer}")) == ("kombu", "1")
        channel.qos.reject(message.delivery_tag, requeue=True)  # a copy, which has its deaths beside it
        assert channel.basic_get("jobs") is not None
        (entry,) = channel.carry_out(channel.streams.held("stream:jobs"))
        dead_letters.set_aside(channel, entry, "why")
    with redis.Redis.from_url(url) as raw:
        ((_, letter),) = raw.xrange("stream-dead:jobs")
    assert {name: value for name, value in letter.items() if name != b"m"} == {b"s": b"jobs", b"d": b"0", b"r": b"why"}
    payload = msgpack.unpackb(letter[b"m"], strict_map_key=False)
    assert sorted(payload) == ["body", "content-encoding", "content-type", "headers", "properties"]
    assert {"task", "id", "redelivered"} <= set(payload["headers"])
