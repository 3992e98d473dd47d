"""The connection parameters of a layer's Redis, from Kombu's and redis-py's view of its URL and options."""

from __future__ import annotations

from typing import Any

import redis

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.redis_io.sentinel_urls import is_sentinel_url
from channelsq.transport.kombu_pool_internals import connection_params
from channelsq.transport.sentinel_channel import primary_params


def redis_channel(layer: KombuBroker) -> Any:
    """Return a Kombu channel of the layer's broker that has its options and is not connected."""
    connection: Any = layer.open_connection()
    transport = connection.transport
    options = connection.transport_options
    # Kombu's channel evaluates URL, ssl and options, but connects when it is created.
    channel = transport.Channel.__new__(transport.Channel)
    channel.connection = transport
    for name in channel.from_transport_options:
        if name in options:
            setattr(channel, name, options[name])
    return channel


def redis_params(layer: KombuBroker, channel: Any = None) -> dict[str, Any]:
    """Return keyword arguments of a redis-py connection pool.

    Args:
        layer: a layer whose broker is one Redis, or the primary that Sentinel names.
        channel: the result of :func:`redis_channel`, if there is one already.

    Raises:
        InvalidChannelLayerError: the URL and the options contradict each other.
    """
    channel = channel or redis_channel(layer)
    try:
        params = connection_params(channel)
        if is_sentinel_url(layer.url):
            params = primary_params(channel, params)
    except (OSError, TypeError, ValueError, redis.RedisError) as error:
        raise unusable(layer, error) from error
    return params


def unusable(layer: KombuBroker, error: Exception) -> InvalidChannelLayerError:
    """Return the error for invalid options."""
    return InvalidChannelLayerError(
        f"the options of {shown(layer.url)} (its query, broker_use_ssl, transport_options) cannot be used: {error}"
    )
