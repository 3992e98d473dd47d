"""Every layer, one after another."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channelsq.layers import (
    BaseChannelLayer,
    InMemoryChannelLayer,
    IPCChannelLayer,
    KombuChannelLayer,
    RedisChannelLayer,
)

MakeLayer = Callable[..., BaseChannelLayer]


@pytest.fixture(
    params=[
        "memory",
        "kombu-memory",
        "ipc",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis-streams", marks=pytest.mark.redis),
        pytest.param("sentinel", marks=pytest.mark.redis),
        pytest.param("redis-shards", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.redis]),
    ]
)
def make_layer(request: pytest.FixtureRequest) -> Iterator[MakeLayer]:
    """Makes layers of one kind with any configuration; flushes and closes them after the test."""
    made: list[BaseChannelLayer] = []
    prefix = f"contract-{secrets.token_hex(4)}"

    def make(**config: Any) -> BaseChannelLayer:
        layer: BaseChannelLayer
        if request.param == "memory":
            layer = InMemoryChannelLayer(**config)
        elif request.param == "ipc":
            layer = IPCChannelLayer(path=request.getfixturevalue("tmp_path") / "ipc", **config)
        elif request.param == "kombu-memory":
            layer = KombuChannelLayer(url="memory://", prefix=prefix, **config)
        elif request.param == "redis":
            layer = KombuChannelLayer(url=request.getfixturevalue("redis_url"), prefix=prefix, **config)
        elif request.param == "redis-streams":
            url = request.getfixturevalue("redis_url").replace("redis:", "redis-streams:")
            layer = RedisChannelLayer(url=url, prefix=prefix, **config)
        elif request.param == "sentinel":
            layer = RedisChannelLayer(url=request.getfixturevalue("sentinels").url, prefix=prefix, **config)
        elif request.param == "redis-shards":
            server = request.getfixturevalue("redis_url").rpartition("/")[0]
            layer = RedisChannelLayer(hosts=[f"{server}/11", f"{server}/12"], prefix=prefix, **config)
        else:
            layer = KombuChannelLayer(
                url=request.getfixturevalue("rabbitmq_url"),
                groups_url=request.getfixturevalue("redis_url"),
                prefix=prefix,
                **config,
            )
        made.append(layer)
        return layer

    yield make
    for layer in made:
        layer.flush()
        layer.close()


@pytest.fixture
def layer(make_layer: MakeLayer) -> BaseChannelLayer:
    """A layer with its default configuration."""
    return make_layer()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that no other test uses."""
    token = secrets.token_hex(4)
    return lambda name: f"{token}.{name}"
