"""``CONFIG`` of Channels 1's Redis layer: hosts, and keys that have no meaning here."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq import conf
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import RedisChannelLayer
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer


def broker(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have the Celery app's broker at ``url``."""
    monkeypatch.setattr(conf, "celery_broker_url", lambda app=None: url)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (("localhost", 6379), "redis-streams://localhost:6379/0"),
        (["redis.example", 7000], "redis-streams://redis.example:7000/0"),
        (("::1", 6379), "redis-streams://[::1]:6379/0"),
        ("redis://localhost", "redis-streams://localhost"),
        ("redis://:secret@redis.example:6379/0", "redis-streams://:secret@redis.example:6379/0"),
        ("rediss://redis.example", "rediss-streams://redis.example"),
        ("unix:///run/redis.sock", "redis-streams+socket:///run/redis.sock"),
        ("redis-streams://redis.example/3", "redis-streams://redis.example/3"),
    ],
)
@pytest.mark.parametrize("celery", ["", "same", "amqp://rabbit.example"])
def test_a_host_is_on_streams(monkeypatch: pytest.MonkeyPatch, host: Any, url: str, celery: str) -> None:
    broker(monkeypatch, url if celery == "same" else celery)
    layer = RedisChannelLayer(hosts=[host])
    assert layer.own_url == layer.url == url


@pytest.mark.parametrize(
    ("url", "streams"),
    [
        ("redis://:secret@localhost:6379/2", "redis-streams://:secret@localhost:6379/2"),
        ("rediss://localhost", "rediss-streams://localhost"),
        ("redis+socket:///run/redis.sock?virtual_host=2", "redis-streams+socket:///run/redis.sock?virtual_host=2"),
        ("unix:///run/redis.sock?db=2", "redis-streams+socket:///run/redis.sock?virtual_host=2"),
        ("unix://user@/run/redis.sock?password=x&db=2", "redis-streams+socket://user@/run/redis.sock?password=x&virtual_host=2"),
        ("redis-streams://localhost", "redis-streams://localhost"),
    ],
)  # fmt: skip
def test_every_spelling_is_on_streams(monkeypatch: pytest.MonkeyPatch, url: str, streams: str) -> None:
    broker(monkeypatch, "amqp://rabbit.example")
    layer = RedisChannelLayer(url=url)
    assert layer.url == layer.kombu_url == streams
    assert layer.is_on(url)
    assert layer.is_on(streams)
    broker(monkeypatch, url)
    assert RedisChannelLayer().url == streams


def test_a_broker_that_is_no_redis_is_not_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    broker(monkeypatch, "amqp://:secret@rabbit.example")
    layer = RedisChannelLayer()
    with pytest.raises(InvalidChannelLayerError, match="needs a redis:// or rediss:// URL") as raised:
        _ = layer.url
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hosts": []}, "must be a list of URLs or .*, not an empty one"),
        ({"hosts": ["redis://a", "redis://:secret@a:6379/0"]}, "names the server a:6379/0 twice"),
        (
            {"hosts": ["redis://a", "redis://b"], "groups_url": "redis://a"},
            "takes no .* with several",
        ),
        ({"hosts": ["redis://a", "redis://b"], "url": "redis://a"}, "not both"),
        ({"hosts": ["redis://a", "amqp://b"]}, "needs a redis:// or rediss:// URL"),
        ({"hosts": ["redis://a"], "standby": ["redis://a"]}, "is for several"),
        ({"hosts": ["redis://a", "redis://b"], "standby": ["redis://c"]}, "c:6379/0, which is not in"),
        ({"hosts": ["redis://a", "redis://b"], "standby": ["redis://a", "redis://b"]}, "every server"),
        ({"hosts": ["redis://a", "redis://b"], "standby": "redis://a"}, r"CONFIG\['standby'\] must be a list"),
        ({"hosts": "redis://a"}, "must be a list of URLs or .*, not the str 'redis://a/'"),
        ({"hosts": [("a",)]}, "not a tuple"),
        ({"hosts": [("a", "6379")]}, r"a number for the port, .*, not \('a', '6379'\)"),
        ({"hosts": [("a", True)]}, r"not \('a', True\)"),
        ({"hosts": "redis://user:secret@a"}, r"not the str 'redis://user:\*\*@a"),
        ({"hosts": "user:secret@a"}, "not the str 'a'"),
        ({"hosts": [("redis://:secret@a", 6379, 0)]}, "not a tuple"),
        ({"hosts": [("redis://:secret@a", "6379")]}, "not a tuple"),
        ({"hosts": [{"address": "redis://:secret@a"}]}, "not a dict"),
        ({"hosts": ["redis://a"], "url": "redis://a"}, "not both"),
        ({"hosts": ["amqp://a"]}, "needs a redis:// or rediss:// URL"),
        ({"stats_prefix": "stats:"}, r"CONFIG\['stats_prefix'\]: no statistics are kept"),
        ({"connection_kwargs": {"db": 1}}, r"CONFIG\['connection_kwargs'\]: .*transport_options"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused_says_what_to_do(config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=says) as raised:
        RedisChannelLayer(**config)
    assert "secret" not in str(raised.value)


def test_the_other_keys_of_channels_1(monkeypatch: pytest.MonkeyPatch) -> None:
    broker(monkeypatch, "")
    layer = RedisChannelLayer(
        hosts=[("localhost", 6379)],
        prefix="asgi:",
        expiry=30,
        group_expiry=500,
        capacity=10,
        channel_capacity={"http.request": 200},
        symmetric_encryption_keys=[],
    )
    assert (layer.prefix, layer.expiry, layer.group_expiry, layer.capacity) == ("asgi:", 30, 500, 10)
    assert layer.capacity_of("http.request") == 200


def test_several_hosts_are_one_layer() -> None:
    layer = RedisChannelLayer(hosts=[("a", 6379), "redis://b/1"], prefix="asgi:", capacity=10, threads=3)
    assert isinstance(layer, ShardedChannelLayer)
    assert [shard.url for shard in layer.shards] == ["redis-streams://a:6379/0", "redis-streams://b/1"]
    assert layer.placement.servers == ("a:6379/0", "b:6379/1")
    assert (layer.prefix, layer.capacity, layer.threads, layer.processes) == ("asgi:", 10, 3, None)
    assert {shard.process for shard in layer.shards} == {layer.process}
    assert {shard.capacity for shard in layer.shards} == {10}
