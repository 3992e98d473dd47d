"""One consumer of streams: the commands and operations with which it reads, acknowledges and gives back."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence

from channelsq.redis_core.commands import Argument, Command
from channelsq.redis_core.entries import GROUP, Copy, Entry, read_entries, read_streams
from channelsq.redis_core.operations import Operation, ask, run
from channelsq.redis_core.scripts import (
    ABSOLVE,
    ACKNOWLEDGE,
    BURY,
    GIVE_BACK,
    HELD,
    JOIN,
    LEAVE,
    PURGE,
    SIZE,
    TAKE,
    TAKE_OVER,
)
from channelsq.redis_core.server_clock import TIME, milliseconds_of

#: Entries that one call of a script copies, claims or deletes at most, so that none holds up the server.
CHUNK = 100
PURGE_CHUNK = 5000


def consumer_name() -> str:
    """Return a name that no other consumer has had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"


class StreamConsumer:
    """A consumer of the streams of one database.

    Args:
        prefix: the global key prefix.
        lease: seconds.
    """

    def __init__(self, prefix: str, lease: float) -> None:
        self.prefix = prefix
        self.lease_ms = max(1, int(lease * 1000))
        self.consumer = consumer_name()

    def renew_consumer(self) -> None:
        """Be another consumer from now on."""
        self.consumer = consumer_name()

    def key(self, name: str) -> str:
        """Return the key of a queue's stream; ``name`` has the priority step on, if above 0."""
        return f"{self.prefix}stream:{name}"

    @property
    def lease_prefix(self) -> str:
        """What a consumer's lease begins with."""
        return f"{self.prefix}stream-lease:"

    @property
    def lease_key(self) -> str:
        """The key that says that this consumer is alive."""
        return self.lease_prefix + self.consumer

    # -- Being a consumer

    def join(self, expires: Mapping[str, int]) -> Operation[None]:
        """Become a consumer of streams, which are made if they are missing; sets the lease.

        Args:
            expires: x-expires in ms, 0 for none, of each key.
        """
        keys = [self.lease_key, *expires]
        yield from run(JOIN, keys, GROUP, self.consumer, self.lease_ms, *expires.values())

    def leave(self, keys: Sequence[str]) -> Operation[int]:
        """Stop being a consumer; return how many entries are still held, which keep it one."""
        return int((yield from run(LEAVE, keys, GROUP, self.consumer))) if keys else 0

    def lease_command(self) -> Command:
        """Return the command that renews the lease."""
        return ("SET", self.lease_key, "1", "PX", self.lease_ms)

    def drop_lease(self) -> Operation[None]:
        """Say that this consumer is gone."""
        yield from ask(("DEL", self.lease_key))

    def expire_lease(self, consumer: str) -> Operation[None]:
        """Say that another consumer is dead, so that what it holds is taken over now; that counts as a death."""
        yield from ask(("DEL", self.lease_prefix + consumer))

    def absolve(self, keys: Sequence[str], consumers: Iterable[str]) -> Operation[None]:
        """Say that consumers, which were this process's, are gone, and that nothing they hold is to blame."""
        yield from run(ABSOLVE, keys, GROUP, self.lease_prefix, *consumers)

    # -- Reading

    def read_command(self, keys: Sequence[str], count: int, block: int | None) -> Command:
        """Return the command that waits for entries.

        Args:
            keys: the streams.
            count: how many entries of each stream at most.
            block: ms to wait; 0 for ever, None for not at all.
        """
        wait: Command = () if block is None else ("BLOCK", block)
        group: Command = ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", count, *wait)
        return (*group, "STREAMS", *keys, *([">"] * len(keys)))

    def take_command(self, keys: Sequence[str], count: int) -> Command:
        """Return the command that takes up to ``count`` entries of all streams together, without waiting."""
        return TAKE.command(keys, (GROUP, self.consumer, count))

    def take(self, keys: Sequence[str], count: int) -> Operation[list[Entry]]:
        """Take entries now."""
        reply = yield from run(TAKE, keys, GROUP, self.consumer, count)
        return [entry for _, entries in read_streams(reply) for entry in entries]

    def take_over_command(self, keys: Sequence[str], count: int, limit: int | None, room: float) -> Command:
        """Return the command that takes what consumers without a lease hold.

        Args:
            keys: the streams.
            count: how many entries of all streams together at most.
            limit: how many deaths make a dead letter; None for no number of them.
            room: how much of this consumer's quarantine is free, 0 to 1.
        """
        return TAKE_OVER.command(keys, (GROUP, self.consumer, self.lease_prefix, count, limit or 0, repr(room)))

    def forgive_commands(self, entries: Iterable[Entry]) -> list[Command]:
        """Return the commands that count the deaths of entries, which are held, from the beginning."""
        ids: dict[str, list[Argument]] = {}
        for entry in entries:
            ids.setdefault(entry.key, []).append(entry.id)
        return [("XCLAIM", key, GROUP, self.consumer, 0, *held, "RETRYCOUNT", 1, "JUSTID") for key, held in ids.items()]

    def held(self, key: str) -> Operation[list[Entry]]:
        """Return everything that this consumer holds of a stream."""
        held: list[Entry] = []
        after = b"-"
        while after:
            after, entries = yield from run(HELD, [key], GROUP, self.consumer, after, CHUNK)
            held += read_entries(key, entries)
        return held

    def holds_command(self, key: str, entry: str) -> Command:
        """Return the command whose reply is an empty list if this consumer does not hold an entry."""
        return ("XPENDING", key, GROUP, entry, entry, 1, self.consumer)

    # -- Settling

    def acknowledge(self, key: str, entry: str) -> Operation[bool]:
        """Acknowledge an entry now; return False if nobody holds it any more."""
        return bool((yield from run(ACKNOWLEDGE, [key], GROUP, entry)))

    def bury(self, entry: Entry, dead: str, keep: int, fields: Iterable[Argument]) -> Operation[bool]:
        """Move an entry into the stream ``dead``, of which the last ``keep`` entries stay; False if it is not held."""
        args = (GROUP, self.consumer, entry.id, keep, *fields)
        return bool((yield from run(BURY, [entry.key, dead], *args)))

    def give_back(self, copies: Iterable[Copy]) -> Operation[int]:
        """Put entries that are held at the end of their streams; return how many of them were still held."""
        by_key: dict[str, list[Argument]] = {}
        for copy in copies:
            lifetime = "" if copy.lifetime is None else copy.lifetime
            by_key.setdefault(copy.key, []).extend((copy.id, copy.data, lifetime, copy.deaths))
        returned = 0
        for key, fields in by_key.items():
            for start in range(0, len(fields), 4 * CHUNK):
                chunk = fields[start : start + 4 * CHUNK]
                returned += int((yield from run(GIVE_BACK, [key], GROUP, self.consumer, *chunk)))
        return returned

    # -- Queues

    def put(self, key: str, data: bytes, lifetime: int | None, expires: Mapping[str, int]) -> Operation[None]:
        """Append a message that lives for so many ms; ``expires`` has the keys whose time to live starts again."""
        fields: Command = ("m", data) if lifetime is None else ("m", data, "x", lifetime)
        yield from ask(("XADD", key, "*", *fields), *_touching(expires))

    def touch(self, expires: Mapping[str, int]) -> Operation[None]:
        """Start the time to live, in ms, of keys again."""
        if expires:
            yield from ask(*_touching(expires))

    def size(self, keys: Sequence[str]) -> Operation[int]:
        """Return how many messages wait, without those that consumers hold; delete expired ones at the head."""
        return int((yield from run(SIZE, keys, GROUP, 1000)))

    def purge(self, keys: Sequence[str]) -> Operation[int]:
        """Delete what waits; return how many that were."""
        total = 0
        while deleted := int((yield from run(PURGE, keys, GROUP, PURGE_CHUNK))):
            total += deleted
        return total

    def delete(self, keys: Sequence[str]) -> Operation[None]:
        """Delete streams with everything that waits or is held.

        A stream that is made again counts its ids from the clock alone.  So this returns in a later millisecond of
        the server's: else a new message could get the id of a deleted one, and be deleted by the acknowledgement of
        that one, which may be on its way.
        """
        _, deleted_at = yield from ask(("DEL", *keys), TIME)
        while True:
            (now,) = yield from ask(TIME)
            if milliseconds_of(now) != milliseconds_of(deleted_at):
                return

    def exist(self, keys: Sequence[str]) -> Operation[bool]:
        """Return whether any of the streams exists."""
        return bool((yield from ask(("EXISTS", *keys)))[0])


def _touching(expires: Mapping[str, int]) -> list[Command]:
    return [("PEXPIRE", key, ms) for key, ms in expires.items()]
