"""Parameters of redis-py's connection pools: from the URL of a server, or of the Sentinels that name one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import redis
import redis.connection
from redis.exceptions import ResponseError

from channelsq.redis_core.server_errors import MAY_WRITE_IF_FULL
from channelsq.redis_io.away import watch
from channelsq.redis_io.primaries import Address, Primary, primary_of
from channelsq.redis_io.redis_internals import PrimaryConnection, PrimarySSLConnection
from channelsq.redis_io.sentinel_urls import is_sentinel_url, missing_name, read_sentinel_url

#: The transport options that say which Sentinels' primary is meant, as Kombu names them.
OPTIONS = ("master_name", "min_other_sentinels", "sentinel_kwargs")


def chosen_primary(sentinels: Sequence[Address], options: Mapping[str, Any]) -> Primary:
    """Return the primary that transport options name.

    Args:
        sentinels: host and port of each Sentinel.
        options: transport options, of which :data:`OPTIONS` are read.

    Raises:
        ValueError: an option is missing or has the wrong type.
    """
    name = options.get("master_name")
    if name is None:
        raise missing_name(sentinels)
    if not isinstance(name, str) or not name:
        raise ValueError(f"transport option master_name is {name!r}; it is the name of a primary, such as 'mymaster'")
    theirs = options.get("sentinel_kwargs")
    if not isinstance(theirs, (Mapping, type(None))):
        raise ValueError(
            f"transport option sentinel_kwargs is a {type(theirs).__name__}; it is a dictionary of redis-py's options "
            'for the connections to the sentinels, such as {"password": …}'
        )
    others = options.get("min_other_sentinels") or 0
    if type(others) is not int or others < 0:
        raise ValueError(f"transport option min_other_sentinels is {others!r}; it is a whole number")
    return primary_of(sentinels, name, theirs, others)


def to_primary(params: Mapping[str, Any], primary: Primary) -> dict[str, Any]:
    """Return the parameters of a pool whose connections are to the current primary.

    Args:
        params: keyword arguments of redis-py's ConnectionPool, with ``connection_class``.
        primary: the primary.
    """
    found = {name: value for name, value in params.items() if name not in ("host", "port")}
    if not issubclass(found["connection_class"], PrimaryConnection):
        tls = issubclass(found["connection_class"], redis.SSLConnection)
        found = watch({**found, "connection_class": PrimarySSLConnection if tls else PrimaryConnection})
    return {**found, "primary": primary, "redis_connect_func": _greet}


def _greet(connection: Any) -> None:
    """Greet the server, as redis-py does, and refuse one that does not accept writes: it may be a replica now."""
    connection.on_connect()
    connection.send_command(*MAY_WRITE_IF_FULL, check_health=False)
    with contextlib.suppress(ResponseError):  # the server is old, or the user may not run scripts: reported elsewhere
        connection.read_response()  # raises ServerAway


def url_params(url: str) -> dict[str, Any]:
    """Return keyword arguments of redis-py's ConnectionPool for a URL.

    Args:
        url: in redis-py's form (``redis://``, ``rediss://``, ``unix://``), or ``sentinel://``.

    Raises:
        ValueError: the URL cannot be used.
    """
    if not is_sentinel_url(url):
        params: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        return watch({"connection_class": redis.Connection, **params})
    place = read_sentinel_url(url)
    primary = chosen_primary(place.sentinels, place.options({}))
    login = {"username": place.username, "password": place.password, "db": place.db}
    kind = redis.Connection if place.tls is None else redis.SSLConnection
    return to_primary({**login, **(place.tls or {}), "connection_class": kind}, primary)
