"""The parameters of a Redis channel's connections: our channels change them, layers and shards read them."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
import redis
from kombu.transport import redis as kombu_redis

from channelsq.transport.kombu_pool_internals import PooledChannel, PrimaryChannel, connection_params, new_pool
from tests.support.servers import RedisServer

pytestmark = pytest.mark.redis


class Named(PooledChannel):
    """A channel that sets the name of its connections."""

    def pool_params(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**super().pool_params(params), "client_name": "ours"}


class NamedTransport(kombu_redis.Transport):
    """The transport of :class:`Named`."""

    Channel: Any = Named


class Primary(PrimaryChannel, kombu_redis.SentinelChannel):
    """A channel of Kombu's Sentinel transport that asks no Sentinel."""

    connection_class: Any = redis.Connection


class PrimaryTransport(kombu_redis.SentinelTransport):
    """The transport of :class:`Primary`."""

    Channel: Any = Primary


def connection(server: RedisServer, transport: Any) -> kombu.Connection:
    return kombu.Connection(hostname="127.0.0.1", port=server.port, virtual_host="0", transport=transport)


def test_every_connection_of_a_channel_has_the_changed_parameters(redis_server: RedisServer) -> None:
    """Also those on which Kombu polls and listens."""
    with connection(redis_server, NamedTransport) as made:
        channel: Any = made.default_channel
        assert channel.client.client_getname() == "ours"
        for pool in (channel.pool, channel.async_pool, new_pool(channel)):
            assert pool.connection_kwargs["client_name"] == "ours"


def test_a_new_pool_is_not_the_channels(redis_server: RedisServer) -> None:
    with connection(redis_server, NamedTransport) as made:
        channel: Any = made.default_channel
        pool = new_pool(channel)
        assert pool is not channel.pool
        assert pool.connection_kwargs["port"] == redis_server.port


def test_the_parameters_of_kombus_own_channel_are_read_without_connecting(redis_server: RedisServer) -> None:
    with connection(redis_server, kombu_redis.Transport) as made:
        channel: Any = kombu_redis.Channel.__new__(kombu_redis.Channel)
        channel.connection = made.transport
        params = connection_params(channel)
        assert not made.connected
    assert (params["host"], params["port"], params["db"]) == ("127.0.0.1", redis_server.port, 0)


def test_a_closed_channel_says_that_its_connection_is_lost(redis_server: RedisServer) -> None:
    """Kombu's AttributeError would end a worker that closes a lost connection."""
    with connection(redis_server, NamedTransport) as made:
        channel: Any = made.default_channel
        channel.close()
        with pytest.raises(ConnectionError, match="closed"):
            connection_params(channel)


def test_kombus_sentinel_channel_connects_by_the_parameters_alone(redis_server: RedisServer) -> None:
    """Kombu itself would ask for ``master_name``, and Sentinel for the primary's address."""
    with connection(redis_server, PrimaryTransport) as made:
        channel: Any = made.default_channel
        assert channel.pool.connection_kwargs["port"] == redis_server.port
        assert channel.client.ping()
