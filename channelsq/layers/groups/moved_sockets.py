"""Marks of sockets whose messages have moved to another server of a layer with several.

The key ``<prefix>:moved:<reply channel>`` is on the new server: a string that expires, the order of the first message
that went there.  The order of a socket's messages counts its epochs: an older message that comes up on another server
belongs to an epoch that is over, and must not run.
"""

from __future__ import annotations

from channelsq.layers.groups.group_stores import RedisGroups
from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import ask

#: Seconds that a mark lives: longer than a message may wait, be held by a worker, and be redelivered.
KEPT = 3600


def moved_key(prefix: str, channel: str) -> str:
    """Return the key of the mark of a socket."""
    return f"{prefix}:moved:{channel}"


def moved_command(prefix: str, channel: str, order: int) -> Command:
    """Return the command that marks a socket on its new server, before its message ``order`` is sent there."""
    return ("SET", moved_key(prefix, channel), order, "EX", KEPT)


def moved_order(groups: RedisGroups, channel: str) -> int | None:
    """Return the order of the first message of a socket on the server of ``groups``; None if it did not move there.

    Raises:
        BrokerUnavailable: the server does not answer.
    """
    (order,) = groups.carry_out(lambda: ask(("GET", moved_key(groups.prefix, channel))))
    return None if order is None else int(order)
