"""How full a channel is, and what its stream holds, for people who look at it; of messages nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from channelsq.redis_core.commands import Command
from channelsq.redis_core.entries import GROUP, pairs
from channelsq.redis_core.operations import Operation, ask, exchange, run
from channelsq.redis_core.scripts import SIZE
from channelsq.redis_core.server_clock import TIME, seconds_of
from channelsq.redis_core.server_errors import is_error, is_missing_group, raise_error

#: Expired messages that one look at a channel's size deletes at most.
_EXPIRED_AT_ONCE = 1000


class Held(NamedTuple):
    """The state of a stream beside its length."""

    #: How many entries consumers have been given and not acknowledged.
    held: int
    #: Seconds for which the oldest entry has waited that no consumer was given; None if none waits.
    oldest: float | None
    #: How many dead letters there are of its queue.
    dead: int


def look(key: str, dead_key: str) -> Operation[Held]:
    """Look at a stream and at that of its queue's dead letters, which need not exist."""
    groups, dead, time = yield from exchange(("XINFO", "GROUPS", key), ("XLEN", dead_key), TIME)
    for reply in (dead, time):
        raise_error(reply)
    held, last = 0, b"0-0"
    for group in () if is_error(groups) else map(pairs, groups):  # an error: there is no such stream
        if group.get(b"name") == GROUP.encode():
            held, last = int(group[b"pending"]), group[b"last-delivered-id"]
    (entries,) = yield from ask(("XRANGE", key, b"(" + last, "+", "COUNT", 1))
    if not entries:
        return Held(held, None, int(dead))
    sent = int(bytes(entries[0][0]).partition(b"-")[0]) / 1000
    return Held(held, max(0.0, seconds_of(time) - sent), int(dead))


def length(key: str) -> Command:
    """Return the command that tells how many entries a stream has, whether or not consumers hold them."""
    return ("XLEN", key)


def waiting(key: str) -> Operation[int]:
    """Return how many messages of a queue that workers consume wait; delete expired ones at the head."""
    return int((yield from run(SIZE, [key], GROUP, _EXPIRED_AT_ONCE)))


def waiting_below(key: str, capacity: int, asking: Callable[[], None]) -> Operation[int]:
    """Return the same by two commands that cost the server next to nothing, unless the queue seems to be full.

    They count expired messages, too.

    Args:
        key: the queue's stream.
        capacity: how many messages make it full.
        asking: called before each question: what is sent from then on comes on top of the answer.
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
