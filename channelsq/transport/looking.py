"""What a stream holds, for people who look at it; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from channelsq.transport.commands import Reply, exchange
from channelsq.transport.streams import GROUP


class Held(NamedTuple):
    """The state of a stream beside its length."""

    #: How many entries consumers have been given and not acknowledged.
    held: int
    #: Seconds for which the oldest entry has waited that no consumer was given; None if none waits.
    oldest: float | None
    #: How many dead letters there are of its queue.
    dead: int


def look(pool: Any, key: str, dead_key: str) -> Held:
    """Look at a stream and at that of its queue's dead letters, which need not exist.

    Raises:
        redis.RedisError: no connection, or the server refuses.
    """
    groups, dead, time = exchange(pool, [("XINFO", "GROUPS", key), ("XLEN", dead_key), ("TIME",)])
    for reply in (dead, time):
        if isinstance(reply, ResponseError):
            raise reply
    held, last = 0, b"0-0"
    for group in _maps(groups):
        if group.get(b"name") == GROUP.encode():
            held, last = int(group[b"pending"]), group[b"last-delivered-id"]
    entries = exchange(pool, [("XRANGE", key, b"(" + last, "+", "COUNT", 1)])[0]
    if isinstance(entries, ResponseError):
        raise entries
    if not entries:
        return Held(held, None, int(dead))
    sent = int(bytes(entries[0][0]).partition(b"-")[0]) / 1000
    return Held(held, max(0.0, int(time[0]) + int(time[1]) / 1_000_000 - sent), int(dead))


def _maps(reply: Reply) -> Iterator[Mapping[Any, Any]]:
    """Return the maps in a reply; none in an error, as there is no such stream."""
    for each in reply if isinstance(reply, list) else ():
        yield each if isinstance(each, Mapping) else dict(zip(each[::2], each[1::2], strict=False))
