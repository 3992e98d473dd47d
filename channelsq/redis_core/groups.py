"""Groups of channels as Redis sets.

Keys, all with the groups' prefix:

``<prefix>:group:{<group>}``           set: the channels in the group
``<prefix>:group:{<group>}:expiry``    sorted set: the same channels by the time their membership ends
``<prefix>:group:{<group>}:addresses`` string: the members of a large group as a send needs them, cached for a while
``<prefix>:member:<channel>``          set: the groups that the channel is in
``<prefix>:buried:<process>``          see :mod:`channelsq.layers.groups.presence`

Every key of groups expires by itself some time after the last :meth:`GroupCommands.add` that touched it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import Call, Operation, ask, run, transaction
from channelsq.redis_core.scripts import FORGET_MEMBER, GROUP_ADDRESSES, GROUP_MEMBERS

#: The most names that are packed together, so that an envelope of one message stays within some hundred KB.
MOST_TOGETHER = 5000

#: The number of members from which a group's addresses are cached, and for how long (ms).  Collecting the addresses
#: of 4000 members takes Redis as long as some 500 of their sockets take an interface server.
LARGE, KEPT_MS = 100, 10_000

#: The number of keys, or members, that one command scans.
SCANNED_TOGETHER = 1000


class Addresses(NamedTuple):
    """The recipients of a message to a group."""

    #: For each process the prefix of its channels' names, and a msgpack list of the names.
    by_process: list[tuple[str, bytes]]
    #: Channels that belong to no process.
    others: list[str]


class GroupCommands:
    """Operations on the groups of one layer.

    Args:
        prefix: the prefix of every key.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def group_key(self, group: str) -> str:
        """Return the key of a group's set."""
        return f"{self.prefix}:group:{{{group}}}"

    def member_key(self, channel: str) -> str:
        """Return the key of the set of a channel's groups."""
        return f"{self.prefix}:member:{channel}"

    def _adding(self, group: str, channel: str, end: float, expiry: float) -> list[Command]:
        key, member, milliseconds = self.group_key(group), self.member_key(channel), max(1, int(expiry * 1000))
        return [
            ("UNLINK", f"{key}:addresses"),
            ("SADD", key, channel),
            ("ZADD", f"{key}:expiry", repr(end), channel),
            ("SADD", member, group),
            *(("PEXPIRE", touched, milliseconds) for touched in (key, f"{key}:expiry", member)),
        ]

    def add(
        self, group: str, channel: str, end: float, expiry: float, owner: str | None, more: Iterable[Command] = ()
    ) -> Operation[bool]:
        """Add a member; return False if its process has ended and another process has cleaned up for it.

        Args:
            group, channel: the names.
            end: when the membership ends, in seconds since 1970.
            expiry: seconds after which the keys expire.
            owner: the process that has the channel's client, if there is one.
            more: commands for the same transaction.
        """
        commands = [*self._adding(group, channel, end, expiry), *more]
        if owner is not None:
            commands.append(("EXISTS", f"{self.prefix}:buried:{owner}"))
        replies = yield from transaction(*commands)
        return owner is None or not replies[-1]

    def add_some(self, memberships: Iterable[tuple[str, str, float]], expiry: float) -> Operation[None]:
        """Add several members, each a group, a channel and the end as in :meth:`add`; not in a transaction."""
        yield from ask(*[command for each in memberships for command in self._adding(*each, expiry)])

    def discard(self, group: str, channel: str, more: Iterable[Command] = ()) -> Operation[None]:
        """End a membership, if there is one; ``more`` as in :meth:`add`."""
        key = self.group_key(group)
        yield from transaction(
            ("SREM", key, channel),
            ("ZREM", f"{key}:expiry", channel),
            ("SREM", self.member_key(channel), group),
            *more,
        )

    def members(self, group: str, now: float) -> Operation[list[str]]:
        """Return the channels in a group at the time ``now``, in seconds since 1970."""
        key = self.group_key(group)
        reply = yield from run(GROUP_MEMBERS, [key, f"{key}:expiry"], repr(now))
        return [channel.decode() for channel in reply]

    def addresses(self, group: str, now: float) -> Operation[Addresses]:
        """Return the channels in a group by their process."""
        key = self.group_key(group)
        keys = [key, f"{key}:expiry", f"{key}:addresses"]
        others, *found = yield from run(GROUP_ADDRESSES, keys, repr(now), MOST_TOGETHER, KEPT_MS, LARGE)
        by_process = [(prefix.decode(), packed) for prefix, packed in zip(found[::2], found[1::2], strict=True)]
        return Addresses(by_process, [channel.decode() for channel in others])

    def some_members(self, group: str, most: int) -> Operation[tuple[list[str], int]]:
        """Return about ``most`` channels in a group, and the number of all; some memberships may have ended."""
        key = self.group_key(group)
        found: dict[str, None] = {}
        cursor = b"0"
        while True:
            command: Command = ("SSCAN", key, cursor, "COUNT", min(most, SCANNED_TOGETHER))
            ((cursor, members),) = yield from ask(command)
            found.update((member.decode(), None) for member in members)
            if int(cursor) == 0 or len(found) >= most:
                break
        (size,) = yield from ask(("SCARD", key))
        return list(found)[:most], int(size)

    def scan(self, cursor: bytes) -> Operation[tuple[bytes, dict[str, int]]]:
        """Return the next cursor (``b"0"`` at the end) and some groups with the numbers of their members."""
        start = self.group_key("")[:-1]
        after, keys = yield from scan_keys(f"{start}*}}", cursor)
        sizes = yield from ask(*[("SCARD", key) for key in keys])
        found = [key.decode()[len(start) : -1] for key in keys]
        return after, dict(zip(found, map(int, sizes), strict=True))

    def forget(self, *channels: str) -> Operation[None]:
        """Take channels out of every group."""
        yield from ask(*[Call(FORGET_MEMBER, [self.member_key(each)], (each, self.prefix)) for each in channels])

    def flush(self) -> Operation[None]:
        """Delete every group and the marks of processes that ended and of sockets that moved."""
        for kind in ("group", "member", "buried", "moved"):
            yield from delete_matching(f"{self.prefix}:{kind}:*")


def delete_matching(pattern: str) -> Operation[None]:
    """Delete the keys that match a pattern."""
    cursor = b"0"
    while True:
        cursor, keys = yield from scan_keys(pattern, cursor)
        if keys:
            yield from ask(("UNLINK", *keys))
        if int(cursor) == 0:
            return


def matching_keys(pattern: str) -> Operation[list[str]]:
    """Return the keys that match a pattern."""
    found: dict[str, None] = {}
    cursor = b"0"
    while True:
        cursor, keys = yield from scan_keys(pattern, cursor)
        found.update((key.decode(), None) for key in keys)
        if int(cursor) == 0:
            return list(found)


def scan_keys(pattern: str, cursor: bytes) -> Operation[tuple[bytes, list[bytes]]]:
    """Return the next cursor (``b"0"`` at the end) and some of the keys that match a pattern."""
    ((cursor, keys),) = yield from ask(("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_TOGETHER))
    return cursor, keys
