"""Kombu's Redis channels and connections by way of Sentinel: the part that the transports share."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.url import url_to_parts

from channelsq.redis_io.pool_params import OPTIONS, chosen_primary, to_primary
from channelsq.redis_io.primaries import Address
from channelsq.redis_io.redis_internals import PrimaryConnection, PrimarySSLConnection
from channelsq.redis_io.sentinel_urls import PORT, is_sentinel_url, read_sentinel_url
from channelsq.transport.kombu_pool_internals import PrimaryChannel


def sentinels_of(client: Any) -> list[Address]:
    """Return host and port of each Sentinel in the URLs of a Kombu connection."""
    parts = [url_to_parts(url) for url in client.alt]
    found = [(part.hostname or "127.0.0.1", part.port or PORT) for part in parts]
    return found or [(client.hostname or "127.0.0.1", client.port or PORT)]


def primary_params(channel: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a pool whose connections are to the current primary.

    Args:
        channel: a channel of a Sentinel transport, with its options set.
        params: the parameters that Kombu has found.

    Raises:
        ValueError: an option is missing or has the wrong type.
    """
    options = {name: getattr(channel, name, None) for name in OPTIONS}
    return to_primary(params, chosen_primary(sentinels_of(channel.connection.client), options))


class SentinelConnections(PrimaryChannel):
    """A channel to the primary; the transport option ``master_name``, or the URL, has its name."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, *OPTIONS)

    connection_class: Any = PrimaryConnection
    connection_class_ssl: Any = PrimarySSLConnection

    def pool_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have connections lead to the current primary."""
        return primary_params(self, super().pool_params(params))


class SentinelUrls(kombu_redis.Transport):
    """A transport that reads the whole URL itself, with the options in its query."""

    default_port = PORT

    #: Kombu leaves the URL alone: it knows no options.
    can_parse_url = True

    def __init__(self, client: Any, **kwargs: Any) -> None:
        take_url_apart(client)
        super().__init__(client, **kwargs)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URLs of a connection, for logs."""
        client: Any = self.client
        if not client.password and not client.userid:
            return ";".join(client.alt)
        login = f"{client.userid or ''}:{client.password if include_password else mask}@"
        return ";".join(each.replace("://", f"://{login}", 1) for each in client.alt)


def take_url_apart(client: Any) -> None:
    """Give a Kombu connection the values of its URL, and options in the place of the query.

    All URLs have one user, password and database, so that Kombu's failover to the next URL has no use: every attempt to
    connect asks each Sentinel.

    Args:
        client: a Kombu connection that may have been copied from one that was taken apart.

    Raises:
        ValueError: the URL cannot be used.
    """
    client.cycle = None
    url = ";".join(client.alt) or client.hostname or ""
    if "://" not in (client.hostname or "") or not is_sentinel_url(url):
        return
    place = read_sentinel_url(url)
    client.hostname, client.port = place.sentinels[0]
    client.userid = place.username or client.userid
    client.password = place.password or client.password
    client.virtual_host = str(place.db)
    client.alt = place.bare.split(";")
    client.transport_options = place.options(client.transport_options)
    client.ssl = client.ssl or dict(place.tls or {}) or False


class StockSentinelChannel(SentinelConnections, kombu_redis.SentinelChannel):
    """A channel of Kombu's own Sentinel transport, on lists, whose connections follow the primary."""

    from_transport_options = kombu_redis.SentinelChannel.from_transport_options


class StockSentinelTransport(kombu_redis.SentinelTransport):
    """Kombu's own Sentinel transport, on lists, whose connections follow the primary.

    Kombu's connections wait for a primary that is frozen until a timeout.
    """

    Channel: Any = StockSentinelChannel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        take_url_apart(client)
        super().__init__(client, **kwargs)
