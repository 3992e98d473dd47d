"""The state of a channel and of its stream, for monitoring; messages are not changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from channelsq.redis_core.commands import Command
from channelsq.redis_core.entries import GROUP, pairs
from channelsq.redis_core.operations import Operation, ask, exchange, run
from channelsq.redis_core.scripts import SIZE
from channelsq.redis_core.server_clock import TIME, seconds_of
from channelsq.redis_core.server_errors import is_error, is_missing_group, raise_error

#: The most expired messages that one look at a channel's size deletes.
_EXPIRED_AT_ONCE = 1000


class Held(NamedTuple):
    """The state of a stream, apart from its length."""

    #: The number of entries that consumers hold: delivered, and not acknowledged.
    held: int
    #: Seconds since the oldest undelivered entry was sent; None if no entry waits.
    oldest: float | None
    #: The number of dead letters of its queue.
    dead: int
    #: The number of entries that were ever added, since the stream exists; None if the server does not count them.
    added: int | None


def look(key: str, dead_key: str) -> Operation[Held]:
    """Return the state of a stream and of its queue's dead letters; neither stream need exist."""
    groups, stream, dead, time = yield from exchange(
        ("XINFO", "GROUPS", key), ("XINFO", "STREAM", key), ("XLEN", dead_key), TIME
    )
    for reply in (dead, time):
        raise_error(reply)
    held, last = 0, b"0-0"
    # An error means that the stream does not exist.
    added: int | None = 0 if is_error(stream) else pairs(stream).get(b"entries-added")
    for group in () if is_error(groups) else map(pairs, groups):
        if group.get(b"name") == GROUP.encode():
            held, last = int(group[b"pending"]), group[b"last-delivered-id"]
    (entries,) = yield from ask(("XRANGE", key, b"(" + last, "+", "COUNT", 1))
    if not entries:
        return Held(held, None, int(dead), added)
    sent = int(bytes(entries[0][0]).partition(b"-")[0]) / 1000
    return Held(held, max(0.0, seconds_of(time) - sent), int(dead), added)


def length(key: str) -> Command:
    """Return the command that counts a stream's entries, including those that consumers hold."""
    return ("XLEN", key)


def waiting(key: str) -> Operation[int]:
    """Return how many messages wait in a worker's queue; delete expired ones at its head."""
    return int((yield from run(SIZE, [key], GROUP, _EXPIRED_AT_ONCE)))


def waiting_below(key: str, capacity: int, asking: Callable[[], None]) -> Operation[int]:
    """Return the number of waiting messages; unless the queue seems full, by two cheap commands.

    The cheap commands also count expired messages.

    Args:
        key: the queue's stream.
        capacity: the number of messages at which the queue is full.
        asking: called before each request to Redis; messages sent after that call are not in the result.
    """
    asking()
    size, held = yield from exchange(length(key), ("XPENDING", key, GROUP))
    raise_error(size)
    if is_error(held) and not is_missing_group(held):
        raise_error(held)
    found = int(size) - (0 if is_error(held) else int(held[0]))
    if found < capacity:
        return found
    asking()
    return (yield from waiting(key))
