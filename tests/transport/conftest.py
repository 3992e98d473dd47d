"""A Redis server of these tests' own, emptied before each: they count keys, and kill its connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import channelsq.transport  # noqa: F401  (registers the URL schemes)
from tests.support.servers import RedisServer, running_redis
from tests.transport.broker import admin


@pytest.fixture(scope="session")
def transport_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("transport-redis")) as server:
        yield server


@pytest.fixture
def server(transport_server: RedisServer) -> RedisServer:
    """The server, empty."""
    with admin(transport_server) as client:
        client.flushall()
        client.script_flush()
    return transport_server


@pytest.fixture
def url(server: RedisServer) -> str:
    """The server as a broker on streams."""
    return f"redis-streams://127.0.0.1:{server.port}/0"
