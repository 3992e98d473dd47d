"""The Redis servers that a layer uses, for checks, the doctor and warnings at the start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from kombu import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.kombu_broker.params import redis_params
from channelsq.redis_core.server_errors import KNOWS_FLAGS, is_too_old
from channelsq.redis_io.pool_params import url_params
from channelsq.redis_io.primaries import Primary
from channelsq.redis_io.sentinel_urls import is_sentinel_url

#: The timeout of connecting and of an answer, in seconds.  There is no retry.
_PATIENCE = 2.0

_HASTY: dict[str, Any] = {
    "socket_connect_timeout": _PATIENCE,
    "socket_timeout": _PATIENCE,
    "retry": Retry(NoBackoff(), 0),
}


@dataclass(frozen=True)
class RedisServer:
    """One Redis of a layer."""

    layer: KombuBroker
    #: Its URL, without a password.
    shown: str
    has_channels: bool
    has_groups: bool

    @property
    def has_streams(self) -> bool:
        """True if the layer's channels are streams on it."""
        return self.has_channels and "-streams" in self.layer.scheme

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Return a redis-py client with short timeouts, as a context manager.

        Raises:
            redis.RedisError, OSError: also in the block.
                InvalidChannelLayerError: the options of the layer contradict each other.
        """
        if self.has_channels and not self.layer.is_one_redis:
            with self._by_kombu() as client:
                yield client
            return
        pool = redis.ConnectionPool(**{**self._params(), **_HASTY})
        try:
            with redis.Redis(connection_pool=pool) as client:
                yield client
        finally:
            pool.disconnect()

    @property
    def primary(self) -> Primary | None:
        """The primary that Sentinels name; None if the URL is of a server.

        Raises:
            InvalidChannelLayerError: the options of the layer contradict each other.
        """
        if not is_sentinel_url(self.layer.url if self.has_channels else str(self.layer.groups_url)):
            return None
        found: Primary = self._params()["primary"]
        return found

    def _params(self) -> dict[str, Any]:
        if self.has_channels or not self.layer.has_other_groups:
            return redis_params(self.layer)
        return url_params(str(self.layer.groups_url))

    @contextmanager
    def _by_kombu(self) -> Iterator[Any]:
        """Yield a client of the server that one of several URLs names."""
        with self.layer.open_connection() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            channel: Any = connection.default_channel
            with redis.Redis(connection_pool=channel.pool) as client:
                yield client


def redis_servers(layer: BaseChannelLayer) -> list[RedisServer]:
    """Return the servers of a layer; an empty list if it uses no Redis.

    Raises:
        InvalidChannelLayerError: the layer has no broker, or no place for its groups.
    """
    if len(layer.parts) > 1:
        return [server for part in layer.parts for server in redis_servers(part)]
    if not isinstance(layer, KombuBroker):
        return []
    transport: Any = Connection(layer.url).get_transport_cls()
    on_redis = transport.driver_type == "redis"
    groups = layer.groups_url
    if not layer.has_other_groups:
        return [RedisServer(layer, shown(layer.url), True, True)] if on_redis else []
    found = [RedisServer(layer, shown(layer.url), True, False)] if on_redis else []
    return [*found, RedisServer(layer, shown(str(groups)), False, True)]


def version_of(client: Any) -> str:
    """Return the name and version of a server, such as ``"Redis 7.2.4"``; empty if the server does not tell.

    Raises:
        redis.RedisError, OSError: no connection.
    """
    try:
        about = client.info("server")
    except redis.ResponseError:  # INFO is forbidden, and HELLO never is
        try:
            about = _hello(client)
        except redis.ResponseError:  # the server is older than Redis 6
            return ""
    for name, field in (("Valkey", "valkey_version"), ("Dragonfly", "dragonfly_version"), ("Redis", "redis_version")):
        if about.get(field):
            return f"{name} {str(about[field]).removeprefix('df-v')}"
    return ""


def _hello(client: Any) -> dict[str, str]:
    answer = client.execute_command("HELLO")
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=False)
    about = {_text(name): _text(value) for name, value in pairs}
    return {f"{about.get('server', 'redis')}_version": about.get("version", "")}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def is_old(client: Any) -> bool:
    """Return whether a server is too old for channels on streams.

    Its features are tested and not its version, because the version of other servers than Redis says little.

    Raises:
        redis.RedisError, OSError: no connection, or scripts are forbidden.
    """
    try:
        client.execute_command(*KNOWS_FLAGS)
    except redis.ResponseError as error:
        if is_too_old(error):
            return True
        raise
    return False
