"""The address and credentials of a layer's Redis, read by Kombu and redis-py as for every other connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.credentials import UsernamePasswordCredentialProvider

from channelsq.layers import RedisChannelLayer
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.kombu_broker.params import redis_channel, redis_params, unusable
from channelsq.redis_core.commands import Command
from channelsq.redis_io.pool_params import url_params
from channelsq.redis_io.primaries import Primary

#: Seconds to connect, unless the transport options say otherwise.
_CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one Redis server.

    Args:
        shown: the URL without its password.
        host, port: of a TCP server.
        path: of a Unix socket, instead.
        primary: the primary that Sentinels name, instead; None for a server.
        db: the database's number.
        tls: None for a plain connection.
        connect_timeout: seconds.
        client_name: what the server is to call the connections; None for nothing.
        key_prefix: put before every key of the transport.
        credentials: redis-py's CredentialProvider; asked for every connection.
        groups_here: whether the layer's groups are in the same database.
        layer: the layer.
    """

    shown: str
    host: str
    port: int
    path: str | None
    primary: Primary | None
    db: int
    tls: ssl.SSLContext | None
    connect_timeout: float
    client_name: str | None
    key_prefix: str
    credentials: Any
    groups_here: bool
    layer: RedisChannelLayer

    def locate(self) -> tuple[str, int]:
        """Return host and port of the server.  May block while Sentinels are asked.

        Raises:
            redis.ConnectionError: the Sentinels name no server.
        """
        return (self.host, self.port) if self.primary is None else self.primary.address()

    def entry(self) -> list[Command]:
        """Return the first commands of a connection.  May block while a provider fetches credentials."""
        commands: list[Command] = []
        credentials = [part for part in self.credentials.get_credentials() if part]
        if credentials:
            # With a user's name a server that wants no password takes any, as it does from redis-py.
            commands.append(("AUTH", *(credentials if len(credentials) > 1 else ("default", *credentials))))
        if self.db:
            commands.append(("SELECT", self.db))
        if self.client_name:
            commands.append(("CLIENT", "SETNAME", self.client_name))
        return commands


def address_of(layer: object) -> Address | None:
    """Return the Redis to which a layer's commands can be sent directly; None if the layer has several or none.

    Raises:
        InvalidChannelLayerError: the URL and the options contradict each other, or certificates cannot be read.
    """
    # Not for a subclass, whose own way of sending would be passed over.
    if type(layer) is not RedisChannelLayer or not layer.is_one_redis:
        return None
    channel = redis_channel(layer)
    params = redis_params(layer, channel)
    try:
        tls = _tls(params)
    except (OSError, TypeError, ValueError, redis.RedisError) as error:
        raise unusable(layer, error) from error
    return Address(
        shown=shown(layer.url),
        host=params.get("host") or "",
        port=int(params.get("port") or 0),
        path=params.get("path"),
        primary=params.get("primary"),
        db=int(params["db"]),
        tls=tls,
        connect_timeout=params.get("socket_connect_timeout") or _CONNECT_TIMEOUT,
        client_name=params.get("client_name"),
        key_prefix=channel.global_keyprefix,
        credentials=params.get("credential_provider")
        or UsernamePasswordCredentialProvider(params.get("username"), params.get("password")),
        groups_here=not layer.has_other_groups or _groups_place(layer.groups_url) == _place(params),
        layer=layer,
    )


def _tls(params: dict[str, Any]) -> ssl.SSLContext | None:
    if not issubclass(params["connection_class"], redis.SSLConnection):
        return None
    options = {name: value for name, value in params.items() if name.startswith("ssl_")}
    # redis-py's own reading of them; nothing is connected.
    return redis.asyncio.SSLConnection(**options).ssl_context.get()


def _place(params: dict[str, Any]) -> tuple[Any, ...]:
    server = (
        params.get("primary")
        or params.get("path")
        or (params.get("host") or "localhost", int(params.get("port") or 6379))
    )
    return server, int(params.get("db") or 0)


def _groups_place(url: str | None) -> tuple[Any, ...] | None:
    return None if url is None else _place(url_params(url))
