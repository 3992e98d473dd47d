"""Checks of the URLs in the settings, before any connection is opened.

Kombu detects a bad URL only while it connects, and raises an exception that is not a connection error and ends the
thread.
"""

from __future__ import annotations

from typing import Any

import redis.connection
from kombu import Connection
from kombu.utils.url import maybe_sanitize_url, url_to_parts

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.ipc import SCHEME
from channelsq.ipc.directory import directory_of

_REMEDY = (
    "write it as redis://:password@host:6379/0 or amqp://user:password@host:5672/vhost, with special characters "
    "in the password percent-encoded"
)


def shown(url: str) -> str:
    """Return ``url`` without passwords, for messages; it may be several URLs joined by ``;``."""
    return ";".join(_shown(each) for each in url.split(";"))


def _shown(url: str) -> str:
    if url.startswith(f"{SCHEME}://"):
        return url  # unchanged: it contains no password
    try:
        return str(maybe_sanitize_url(url))
    except ValueError:  # the port is not a number, so the end of the password is unknown
        return f"{url.partition('://')[0]}://…"


def same_broker(one: str, other: str) -> bool:
    """Return whether two URLs are of one broker: the same transport, server, database and user.

    Several URLs joined by ``;`` are the same if they are in the same order.
    """
    if one == other:
        return True
    ones, others = one.split(";"), other.split(";")
    try:
        return len(ones) == len(others) and all(
            _place(each) == _place(its) for each, its in zip(ones, others, strict=True)
        )
    except ValueError:  # one of them is invalid, which is reported where it is used
        return False


def _place(url: str) -> tuple[Any, ...]:
    """Return the values that identify a broker, with defaults filled in."""
    scheme, _, _ = url.partition("://")
    if scheme == SCHEME:
        return scheme, directory_of(url).resolve()
    _, host, port, user, password, path, query = url_to_parts(url)
    path = (path or "").strip("/")
    if "redis" in scheme and "socket" not in scheme:
        port, path = port or 6379, path or "0"
    elif scheme in ("amqp", "pyamqp"):
        port = port or 5672
    options = tuple(sorted((name, value) for name, value in query.items() if not name.startswith("ssl_")))
    return scheme, host or "localhost", port, user, password, path, options


def check_broker_url(url: str, *, is_redis: bool) -> None:
    """Raise InvalidChannelLayerError if Kombu cannot parse ``url``; no connection is opened."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        place = url.rpartition("@")[2]  # without a possible password
        raise InvalidChannelLayerError(f"the broker URL {place!r} has no scheme such as redis:// or amqp://; {_REMEDY}")
    try:
        connection = Connection(url)
        connection.get_transport_cls()
        if is_redis and "socket" not in scheme and scheme != "unix":
            int((connection.virtual_host or "").strip("/") or 0)
    except Exception as error:  # each transport raises its own
        # Not the URL itself: no password can be removed from a URL that cannot be parsed.
        reason = error.args[0] if error.args else error
        raise InvalidChannelLayerError(
            f"the {scheme}:// URL of the broker cannot be used: {reason}; {_REMEDY}"
        ) from error


def check_groups_url(url: str) -> None:
    """Raise InvalidChannelLayerError if ``url`` is not a Redis URL."""
    try:
        redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS CONFIG['groups_url'] cannot be used: {error}; write it as redis://:password@host:6379/0"
        ) from error
