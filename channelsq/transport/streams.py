"""What is done with the streams of queues, as commands to Redis; knows nothing of Kombu's channels."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from channelsq.transport.commands import Argument, Command, Reply, Script, call, run

#: The consumer group of every stream.
GROUP = "kombu"

#: Entries that one call of a script copies, claims or deletes at most, so that none holds up the server.
CHUNK = 100
PURGE_CHUNK = 5000

JOIN = Script("join")
TAKE = Script("take")
GIVE_BACK = Script("give_back")
TAKE_OVER = Script("take_over")
LEAVE = Script("leave")
SIZE = Script("size")
HELD = Script("held")
BURY = Script("bury")
ABSOLVE = Script("absolve")
ACKNOWLEDGE = Script("acknowledge")
PURGE = Script("purge")


class Entry(NamedTuple):
    """A message that a consumer holds."""

    key: str
    id: str
    data: bytes
    #: Whether another consumer held it before.
    redelivered: bool = False
    #: How many consumers died with it.
    deaths: int = 0

    @property
    def tag(self) -> str:
        """Kombu's delivery tag for it."""
        return f"{self.id} {self.key}"


class Copy(NamedTuple):
    """What takes the place of an entry that is put back; without data nothing does."""

    key: str
    id: str
    data: bytes
    #: ms, None for a message without an end.
    lifetime: int | None
    #: How many consumers died with it.
    deaths: int = 0


def parse_tag(tag: str) -> tuple[str, str] | None:
    """``(key, id)`` of an entry's tag; None for the tag of a fanout message, which has no entry."""
    entry, space, key = tag.partition(" ")
    return (key, entry) if space else None


def consumer_name() -> str:
    """A name that no other consumer has had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"


def _milliseconds(time: Reply) -> int:
    """The answer to TIME in ms since 1970, as Redis takes them for ids."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


def _pairs(fields: Any) -> Mapping[Any, Any]:
    if not fields:
        return {}
    return dict(zip(fields[::2], fields[1::2], strict=False)) if isinstance(fields, list) else fields


def _data(fields: Any) -> bytes:
    """The field ``m``; what somebody else wrote without one fails to decode later, and is dropped there."""
    data = _pairs(fields).get(b"m", b"")
    return data if isinstance(data, bytes) else b""


def read_entries(key: str, entries: Any, claimed: bool = False) -> Iterator[Entry]:
    """The entries of one stream in a reply; those that were taken from dead consumers are redelivered."""
    for entry, fields in entries:
        if type(fields) is list and len(fields) == 4 and fields[0] == b"m" and fields[2] == b"x":
            yield Entry(key, entry.decode(), fields[1], claimed)  # nearly always
            continue
        deaths = _pairs(fields).get(b"d", b"")
        count = int(deaths) if deaths.isdigit() else 0
        yield Entry(key, entry.decode(), _data(fields), claimed or count > 0, count)


def read_streams(reply: Reply, claimed: bool = False) -> Iterator[tuple[str, list[Entry]]]:
    """Each stream's key and entries in a reply of XREADGROUP, of take.lua, or of take_over.lua (``claimed``)."""
    for key, entries in reply.items() if isinstance(reply, Mapping) else reply or ():
        yield key.decode(), list(read_entries(key.decode(), entries, claimed))


def ack_commands(held: Iterable[tuple[str, str]]) -> list[Command]:
    """XACK and XDEL for ``(key, id)`` pairs."""
    ids: dict[str, list[Argument]] = {}
    for key, entry in held:
        ids.setdefault(key, []).append(entry)
    commands: list[Command] = []
    for key, entries in ids.items():
        commands.append(("XACK", key, GROUP, *entries))
        commands.append(("XDEL", key, *entries))
    return commands


class Streams:
    """The streams of one database, as one consumer sees them.

    Args:
        pool: gives the connection pool; asked each time, since a channel may replace it.
        prefix: the global key prefix.
        lease: seconds.
    """

    def __init__(self, pool: Callable[[], Any], prefix: str, lease: float) -> None:
        self._pool = pool
        self.prefix = prefix
        self.lease_ms = max(1, int(lease * 1000))
        self.consumer = consumer_name()

    def renew_consumer(self) -> None:
        """Be another consumer from now on."""
        self.consumer = consumer_name()

    def key(self, name: str) -> str:
        """The key of a queue's stream; ``name`` has the priority step on, if above 0."""
        return f"{self.prefix}stream:{name}"

    @property
    def lease_prefix(self) -> str:
        """What a consumer's lease begins with."""
        return f"{self.prefix}stream-lease:"

    def lease_command(self) -> Command:
        """Renews the lease."""
        return ("SET", self.lease_key, "1", "PX", self.lease_ms)

    @property
    def lease_key(self) -> str:
        """The key that says that this consumer is alive."""
        return self.lease_prefix + self.consumer

    def join(self, expires: Mapping[str, int]) -> None:
        """Become a consumer of streams, which are made if they are missing; sets the lease.

        Args:
            expires: x-expires in ms, 0 for none, of each key.

        Raises:
            redis.ResponseError: the server is older than Redis 7.0, or a key is no stream.
        """
        keys = [self.lease_key, *expires]
        run(self._pool(), JOIN, keys, GROUP, self.consumer, self.lease_ms, *expires.values())

    def leave(self, keys: Sequence[str]) -> int:
        """Be no consumer any more; gives how many entries are still held, which keep it one."""
        return int(run(self._pool(), LEAVE, keys, GROUP, self.consumer)) if keys else 0

    def drop_lease(self) -> None:
        """Say that this consumer is gone."""
        call(self._pool(), ("DEL", self.lease_key))

    def expire_lease(self, consumer: str) -> None:
        """Say that another consumer is dead, so that what it holds is taken over now; that counts as a death."""
        call(self._pool(), ("DEL", self.lease_prefix + consumer))

    def absolve(self, keys: Sequence[str], consumers: Iterable[str]) -> None:
        """Say that consumers, which were this process's, are gone, and that nothing they hold is to blame."""
        run(self._pool(), ABSOLVE, keys, GROUP, self.lease_prefix, *consumers)

    def read_command(self, keys: Sequence[str], count: int, block: int | None) -> Command:
        """Waits up to ``block`` ms (0 for ever, None for not at all) for entries, ``count`` of each stream at most."""
        wait: Command = () if block is None else ("BLOCK", block)
        group: Command = ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", count, *wait)
        return (*group, "STREAMS", *keys, *([">"] * len(keys)))

    def take_command(self, keys: Sequence[str], count: int) -> Command:
        """Takes up to ``count`` entries of all streams together, without waiting."""
        return TAKE.command(keys, (GROUP, self.consumer, count))

    def take(self, keys: Sequence[str], count: int) -> list[Entry]:
        """Take entries now."""
        reply = run(self._pool(), TAKE, keys, GROUP, self.consumer, count)
        return [entry for _, entries in read_streams(reply) for entry in entries]

    def take_over_command(self, keys: Sequence[str], count: int, limit: int | None, room: float) -> Command:
        """Takes what consumers without a lease hold, up to ``count`` entries of all streams together.

        Args:
            limit: how many deaths make a dead letter; None for no number of them.
            room: how much of this consumer's quarantine is free, 0 to 1.
        """
        return TAKE_OVER.command(keys, (GROUP, self.consumer, self.lease_prefix, count, limit or 0, repr(room)))

    def forgive_commands(self, entries: Iterable[Entry]) -> list[Command]:
        """Count the deaths of entries that are held from the beginning."""
        start = {entry.key: ("XCLAIM", entry.key, GROUP, self.consumer, 0) for entry in entries}
        ids: dict[str, list[Argument]] = {}
        for entry in entries:
            ids.setdefault(entry.key, []).append(entry.id)
        return [(*start[key], *held, "RETRYCOUNT", 1, "JUSTID") for key, held in ids.items()]

    def held(self, key: str) -> Iterator[Entry]:
        """Everything that this consumer holds of a stream."""
        after = b"-"
        while after:
            after, entries = run(self._pool(), HELD, [key], GROUP, self.consumer, after, CHUNK)
            yield from read_entries(key, entries)

    def holds_command(self, key: str, entry: str) -> Command:
        """Gives an empty list if this consumer does not hold an entry, else one with what is known of it."""
        return ("XPENDING", key, GROUP, entry, entry, 1, self.consumer)

    def acknowledge(self, key: str, entry: str) -> bool:
        """Acknowledge an entry now; false if nobody holds it any more."""
        return bool(run(self._pool(), ACKNOWLEDGE, [key], GROUP, entry))

    def bury(self, entry: Entry, dead: str, keep: int, fields: Iterable[Argument]) -> bool:
        """Move an entry into the stream ``dead``, of which the last ``keep`` entries stay; false if it is not held."""
        args = (GROUP, self.consumer, entry.id, keep, *fields)
        return bool(run(self._pool(), BURY, [entry.key, dead], *args))

    def give_back(self, copies: Iterable[Copy]) -> int:
        """Put entries that are held at the end of their streams; gives how many of them were still held."""
        by_key: dict[str, list[Argument]] = {}
        for copy in copies:
            lifetime = "" if copy.lifetime is None else copy.lifetime
            by_key.setdefault(copy.key, []).extend((copy.id, copy.data, lifetime, copy.deaths))
        returned = 0
        for key, fields in by_key.items():
            for start in range(0, len(fields), 4 * CHUNK):
                chunk = fields[start : start + 4 * CHUNK]
                returned += int(run(self._pool(), GIVE_BACK, [key], GROUP, self.consumer, *chunk))
        return returned

    def put(self, key: str, data: bytes, lifetime: int | None, expires: Mapping[str, int]) -> None:
        """Append a message that lives for so many ms; ``expires`` has the keys whose time to live starts again."""
        touch: list[Command] = [("PEXPIRE", stream, ms) for stream, ms in expires.items()]
        fields: Command = ("m", data) if lifetime is None else ("m", data, "x", lifetime)
        call(self._pool(), ("XADD", key, "*", *fields), *touch)

    def touch(self, expires: Mapping[str, int]) -> None:
        """Start the time to live, in ms, of keys again."""
        if expires:
            call(self._pool(), *[("PEXPIRE", key, ms) for key, ms in expires.items()])

    def size(self, keys: Sequence[str]) -> int:
        """How many messages wait, without those that consumers hold; deletes expired ones at the head."""
        return int(run(self._pool(), SIZE, keys, GROUP, 1000))

    def purge(self, keys: Sequence[str]) -> int:
        """Delete what waits; gives how many that were."""
        total = 0
        while deleted := int(run(self._pool(), PURGE, keys, GROUP, PURGE_CHUNK)):
            total += deleted
        return total

    def delete(self, keys: Sequence[str]) -> None:
        """Delete streams with everything that waits or is held.

        A stream that is made again counts its ids from the clock alone.  So this returns in a later millisecond of
        the server's: else a new message could get the id of a deleted one, and be deleted by the acknowledgement of
        that one, which may be on its way.
        """
        deleted_at = _milliseconds(call(self._pool(), ("DEL", *keys), ("TIME",))[1])
        while _milliseconds(call(self._pool(), ("TIME",))[0]) == deleted_at:
            pass

    def exist(self, keys: Sequence[str]) -> bool:
        """Whether any of the streams exists."""
        return bool(call(self._pool(), ("EXISTS", *keys))[0])
