"""How a layer's Redis is entered, as Kombu and redis-py read its URL and options, for every connection to it alike."""

from __future__ import annotations

from typing import Any

import redis

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.kombu_broker.broker_access import KombuBroker


def redis_channel(layer: KombuBroker) -> Any:
    """A channel of Kombu's for the layer's broker that knows its options and has not connected."""
    connection: Any = layer.open_connection()
    transport = connection.transport
    options = connection.transport_options
    # Kombu's channel knows what URL, ssl and options come to, but connects when it is made.
    channel = transport.Channel.__new__(transport.Channel)
    channel.connection = transport
    for name in channel.from_transport_options:
        if name in options:
            setattr(channel, name, options[name])
    return channel


def redis_params(layer: KombuBroker, channel: Any = None) -> dict[str, Any]:
    """Keyword arguments of a connection pool of redis-py.

    Args:
        layer: its broker is one Redis.
        channel: what :func:`redis_channel` gave, if that was asked already.

    Raises:
        InvalidChannelLayerError: the URL and the options contradict each other.
    """
    channel = channel or redis_channel(layer)
    try:
        params: dict[str, Any] = channel._connparams()
    except (OSError, TypeError, ValueError, redis.RedisError) as error:
        raise unusable(layer, error) from error
    return params


def unusable(layer: KombuBroker, error: Exception) -> InvalidChannelLayerError:
    """The error for options that cannot be used."""
    return InvalidChannelLayerError(
        f"the options of {shown(layer.url)} (its query, broker_use_ssl, transport_options) cannot be used: {error}"
    )
