"""Checks of the URLs in the settings, before any connection is opened.

Kombu detects a bad URL only while it connects, and raises an exception that is not a connection error and ends the
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kombu import Connection
from kombu.utils.url import maybe_sanitize_url, url_to_parts

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.ipc import SCHEME
from channelsq.ipc.directory import directory_of
from channelsq.redis_io.pool_params import chosen_primary, url_params
from channelsq.redis_io.sentinel_urls import is_sentinel_url, read_sentinel_url

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

    Several URLs joined by ``;`` are the same if they are in the same order; those of Sentinels in any.
    """
    if one == other:
        return True
    ones, others = one.split(";"), other.split(";")
    try:
        if is_sentinel_url(one) and is_sentinel_url(other):
            return read_sentinel_url(one).is_same(read_sentinel_url(other))
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


def check_sentinel_url(what: str, url: str, options: Callable[[], Mapping[str, Any]]) -> None:
    """Raise InvalidChannelLayerError if a layer cannot reach a Redis by ``url``.

    Args:
        what: the setting.
        url: the URL, or several.
        options: returns the transport options; called if the URL can be read.
    """
    try:
        place = read_sentinel_url(url)
        chosen_primary(place.sentinels, place.options(options()))
    except ValueError as error:
        raise InvalidChannelLayerError(f"{what} cannot be used: {error}") from error


def check_groups_url(url: str) -> None:
    """Raise InvalidChannelLayerError if ``url`` is not a Redis URL."""
    if is_sentinel_url(url):
        check_sentinel_url("CHANNEL_LAYERS CONFIG['groups_url']", url, dict)
        return
    try:
        url_params(url)
    except ValueError as error:
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS CONFIG['groups_url'] cannot be used: {error}; write it as redis://:password@host:6379/0"
        ) from error
