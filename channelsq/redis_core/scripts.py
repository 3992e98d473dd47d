"""The Lua scripts; each file documents the keys that it touches and its reply."""

from __future__ import annotations

from collections.abc import Iterable

from channelsq.redis_core.commands import Argument, Command, Script

# -- Streams and their consumers

JOIN = Script("join")
LEAVE = Script("leave")
TAKE = Script("take")
TAKE_OVER = Script("take_over")
HELD = Script("held")
ACKNOWLEDGE = Script("acknowledge")
GIVE_BACK = Script("give_back")
END_CONSUMERS = Script("end_consumers")
DEAD_LETTER = Script("dead_letter")
REPLAY = Script("replay")
SIZE = Script("size")
PURGE = Script("purge")

#: Runs commands in one transaction, also on a server whose memory is full.
SETTLE = Script("settle")

# -- Groups

GROUP_MEMBERS = Script("group_members")
GROUP_ADDRESSES = Script("group_addresses")
FORGET_MEMBER = Script("forget_member")

# -- Records

REPLACE_FIELD = Script("replace_field")

# -- Lists of Kombu's own Redis transport

DROP_EXPIRED = Script("drop_expired")


def settle_args(commands: Iterable[Command]) -> list[Argument]:
    """Return commands as the arguments of :data:`SETTLE`."""
    words: list[Argument] = []
    for command in commands:
        words.append(len(command))
        words += command
    return words
