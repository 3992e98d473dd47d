"""``CONFIG`` of the Redis layers of Channels: hosts in each form, and keys that have no meaning here."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from channelsq import conf
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import RedisChannelLayer
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.redis_hosts import urls_of
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from channelsq.redis_io.sentinel_urls import read_sentinel_url


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
        (
            {"sentinels": [("s1.example", 26379)], "master_name": "mymaster"},
            "sentinel-streams://s1.example:26379/0?master_name=mymaster",
        ),
    ],
)
@pytest.mark.parametrize("celery", ["", "same", "amqp://rabbit.example"])
def test_a_host_is_on_streams(monkeypatch: pytest.MonkeyPatch, host: Any, url: str, celery: str) -> None:
    broker(monkeypatch, url if celery == "same" else celery)
    layer = RedisChannelLayer(hosts=[host])
    assert layer.own_url == layer.url == url


SENTINELS = {"sentinels": [("a", 26379), ["::1", 1], ("10.0.0.1", 2)], "master_name": "my master;&"}


def test_a_dict_with_sentinels_is_a_url_of_theirs() -> None:
    password = "p@s:s/w;o?r&d#%+ "
    (url,) = urls_of(
        [
            {
                **SENTINELS,
                "username": "anna",
                "password": password,
                "db": 3,
                "ssl": True,
                "ssl_cert_reqs": ssl.CERT_OPTIONAL,
                "ssl_check_hostname": False,
                "sentinel_kwargs": {"username": "bert", "password": password, "ssl": True, "ssl_ca_certs": "/a b.pem"},
            }
        ]
    )
    place = read_sentinel_url(url)
    assert place.scheme == "sentinel"
    assert place.sentinels == (("a", 26379), ("::1", 1), ("10.0.0.1", 2))
    assert (place.username, place.password, place.db, place.master_name) == ("anna", password, 3, "my master;&")
    assert place.tls == {"ssl_cert_reqs": "optional", "ssl_check_hostname": False}
    assert place.sentinel_options == {
        "username": "bert", "password": password, "ssl": True, "ssl_ca_certs": "/a b.pem",
    }  # fmt: skip
    assert not set(password) & set(shown(url)) - set(shown(url).replace("**", ""))
    assert "my master" not in shown(url)


@pytest.mark.parametrize(
    ("more", "tls"),
    [
        ({}, None),
        ({"ssl": False, "password": None, "username": "", "sentinel_kwargs": None, "db": None}, None),
        ({"ssl": True}, {"ssl_cert_reqs": "required"}),
        ({"ssl": True, "ssl_cert_reqs": None, "ssl_keyfile": None}, {"ssl_cert_reqs": "none"}),
    ],
)
def test_what_a_dict_leaves_out_is_as_in_a_url(more: dict[str, Any], tls: dict[str, Any] | None) -> None:
    place = read_sentinel_url(urls_of([{**SENTINELS, **more}])[0])
    assert (place.username, place.password, place.db, place.tls) == (None, None, 0, tls)
    assert place.sentinel_options == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"master_name": ""}, r"\['hosts'\]\[0\]\['master_name'\] must be a str that is not empty, not empty"),
        ({"master_name": 5}, r"\['master_name'\] must be a str that is not empty, not a int"),
        ({"sentinels": []}, r"\['sentinels'\] must be a list of \(host, port\), .*, not an empty one"),
        ({"sentinels": "a:26379"}, r"\['sentinels'\] must be a list .*, not the str 'a:26379'"),
        ({"sentinels": ["a:26379"]}, r"with a number for the port, .*, not the str 'a:26379'"),
        ({"sentinels": [("a", "26379")]}, r"with a number for the port, .*, not \('a', '26379'\)"),
        ({"sentinels": [("a/b", 26379)]}, r"not \('a/b', 26379\)"),
        ({"sentinels": ["sentinel://:secret@a"]}, r"not the str 'sentinel://:\*\*@a"),
        ({"password": 5}, r"\['password'\] must be a str that is not empty, not a int"),
        ({"db": "1"}, r"\['db'\] must be the number of a database, such as 0, not '1'"),
        ({"db": -1}, "not -1"),
        ({"db": True}, "not True"),
        ({"ssl_ca_certs": b"/ca.pem"}, r"\['ssl_ca_certs'\] must be a str, True or False, not a bytes"),
        ({"pasword": "secret"}, r"unknown key 'pasword'; did you mean 'password'\?"),
        ({"ssl_context": "secret"}, "unknown key 'ssl_context'; "),
        ({"zzz": "secret"}, "unknown key 'zzz'; known are db, master_name, password"),
        ({"socket_timeout": 3}, r"has the key 'socket_timeout'; move it to CONFIG\['transport_options'\]"),
        ({"min_other_sentinels": 1}, r"'min_other_sentinels'; move it to CONFIG\['transport_options'\]"),
        ({"sentinel_kwargs": ["secret"]}, r"\['sentinel_kwargs'\] must be a dict of .*, not a list"),
        ({"sentinel_kwargs": {"password": 5}}, r"\['sentinel_kwargs'\]\['password'\] must be a str"),
        ({"sentinel_kwargs": {"passwort": "secret"}}, "unknown key 'passwort'; did you mean 'password'"),
        (
            {"sentinel_kwargs": {"socket_timeout": 1, "password": "secret"}},
            r"'socket_timeout'; move it to CONFIG\['transport_options'\]\['sentinel_kwargs'\]",
        ),
        (
            {"ssl": True, "ssl_keyfile": "/key.pem"},
            r"CONFIG\['hosts'\]\[0\] cannot be used: .* has ssl_keyfile without ssl_certfile; write both",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["hosts", "standby"])
def test_a_dict_that_cannot_be_used_says_what_to_do(change: dict[str, Any], says: str, key: str) -> None:
    config: dict[str, Any] = {"hosts": [{**SENTINELS, "password": "secret", **change}]}
    if key == "standby":
        config = {"standby": config["hosts"], "hosts": ["redis://a", {**SENTINELS}]}
    with pytest.raises(InvalidChannelLayerError, match=says.replace("hosts", key)) as raised:
        _ = RedisChannelLayer(**config).url
    assert "secret" not in str(raised.value)


def test_several_primaries_are_one_layer() -> None:
    hosts = [{**SENTINELS, "master_name": name} for name in ("first", "second")]
    layer = RedisChannelLayer(hosts=hosts, standby=[{**hosts[1], "password": "changed"}])
    assert isinstance(layer, ShardedChannelLayer)
    assert layer.placement.servers == ("first/0", "second/0")
    assert layer.placement.order("anything") == (0,)
    with pytest.raises(InvalidChannelLayerError, match="names the server first/0 twice"):
        RedisChannelLayer(hosts=[hosts[0], hosts[0]])


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
        ({"hosts": []}, "must be a list of URLs, .*, not an empty one"),
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
        (
            {"hosts": ["redis://a", "redis://b"], "standby": ["sentinel://:secret@c?ssl=perhaps"]},
            r"CONFIG\['standby'\] cannot be used: the option ssl of a sentinel:// URL is true or false",
        ),
        ({"hosts": ["redis://a", "redis://b"], "standby": "redis://a"}, r"CONFIG\['standby'\] must be a list"),
        ({"hosts": "redis://a"}, "must be a list of URLs, .*, not the str 'redis://a/'"),
        ({"hosts": [("a",)]}, "not a tuple"),
        ({"hosts": [("a", "6379")]}, r"a number for the port, .*, not \('a', '6379'\)"),
        ({"hosts": [("a", True)]}, r"not \('a', True\)"),
        ({"hosts": "redis://user:secret@a"}, r"not the str 'redis://user:\*\*@a"),
        ({"hosts": "user:secret@a"}, "not the str 'a'"),
        ({"hosts": [("redis://:secret@a", 6379, 0)]}, "not a tuple"),
        ({"hosts": [("redis://:secret@a", "6379")]}, "not a tuple"),
        ({"hosts": [{"address": "redis://:secret@a"}]}, r"dict without 'sentinels'; .*; write a server as a URL"),
        ({"hosts": [{"sentinels": [("a", 1)]}]}, "dict without 'master_name'"),
        ({"hosts": [("user:secret@a", 6379)]}, "not a tuple"),
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
