"""One consumer of streams: its commands and operations to read, acknowledge and give back."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence

from channelsq.redis_core.commands import Argument, Command
from channelsq.redis_core.entries import GROUP, Copy, Entry, read_entries, read_streams
from channelsq.redis_core.operations import Operation, ask, run
from channelsq.redis_core.scripts import (
    ACKNOWLEDGE,
    DEAD_LETTER,
    END_CONSUMERS,
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

#: The most entries that one call of a script copies, claims or deletes, so that no call blocks the server for long.
CHUNK = 100
PURGE_CHUNK = 5000


def consumer_name() -> str:
    """Return a name that no other consumer has or had."""
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
        """Become a new consumer with another name."""
        self.consumer = consumer_name()

    def key(self, name: str) -> str:
        """Return the key of a queue's stream; ``name`` includes the priority step if that is above 0."""
        return f"{self.prefix}stream:{name}"

    @property
    def lease_prefix(self) -> str:
        """The prefix of the keys of leases."""
        return f"{self.prefix}stream-lease:"

    @property
    def lease_key(self) -> str:
        """The key that exists while this consumer's lease does."""
        return self.lease_prefix + self.consumer

    # -- Being a consumer

    def join(self, expires: Mapping[str, int]) -> Operation[None]:
        """Become a consumer of streams and set the lease; create missing streams.

        Args:
            expires: the x-expires of each key in ms; 0 for none.
        """
        keys = [self.lease_key, *expires]
        yield from run(JOIN, keys, GROUP, self.consumer, self.lease_ms, *expires.values())

    def leave(self, keys: Sequence[str]) -> Operation[int]:
        """Stop consuming streams that hold no entries of this consumer; return how many entries it still holds."""
        return int((yield from run(LEAVE, keys, GROUP, self.consumer))) if keys else 0

    def lease_command(self) -> Command:
        """Return the command that renews the lease."""
        return ("SET", self.lease_key, "1", "PX", self.lease_ms)

    def drop_lease(self) -> Operation[None]:
        """Delete this consumer's lease."""
        yield from ask(("DEL", self.lease_key))

    def expire_lease(self, consumer: str) -> Operation[None]:
        """Delete another consumer's lease, so that its entries are taken over now; that counts as a death."""
        yield from ask(("DEL", self.lease_prefix + consumer))

    def end_consumers(self, keys: Sequence[str], consumers: Iterable[str]) -> Operation[None]:
        """End former consumers of this process; the entries that they hold get no death counted."""
        yield from run(END_CONSUMERS, keys, GROUP, self.lease_prefix, *consumers)

    # -- Reading

    def read_command(self, keys: Sequence[str], count: int, block: int | None) -> Command:
        """Return the command that waits for entries.

        Args:
            keys: the streams.
            count: the most entries of each stream.
            block: ms to wait; 0 for no limit, None for not at all.
        """
        wait: Command = () if block is None else ("BLOCK", block)
        group: Command = ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", count, *wait)
        return (*group, "STREAMS", *keys, *([">"] * len(keys)))

    def take_command(self, keys: Sequence[str], count: int) -> Command:
        """Return the command that takes up to ``count`` entries from all streams together, without waiting."""
        return TAKE.command(keys, (GROUP, self.consumer, count))

    def take(self, keys: Sequence[str], count: int) -> Operation[list[Entry]]:
        """Take entries without waiting."""
        reply = yield from run(TAKE, keys, GROUP, self.consumer, count)
        return [entry for _, entries in read_streams(reply) for entry in entries]

    def take_over_command(self, keys: Sequence[str], count: int, limit: int | None, room: float) -> Command:
        """Return the command that takes over entries from consumers without a lease.

        Args:
            keys: the streams.
            count: the most entries of all streams together.
            limit: the number of deaths that makes a dead letter; None for no limit.
            room: the free share of this consumer's quarantine, 0 to 1.
        """
        return TAKE_OVER.command(keys, (GROUP, self.consumer, self.lease_prefix, count, limit or 0, repr(room)))

    def reset_deaths_commands(self, entries: Iterable[Entry]) -> list[Command]:
        """Return the commands that set the deaths of held entries to zero."""
        ids: dict[str, list[Argument]] = {}
        for entry in entries:
            ids.setdefault(entry.key, []).append(entry.id)
        return [("XCLAIM", key, GROUP, self.consumer, 0, *held, "RETRYCOUNT", 1, "JUSTID") for key, held in ids.items()]

    def held(self, key: str) -> Operation[list[Entry]]:
        """Return all entries of a stream that this consumer holds."""
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
        """Acknowledge an entry immediately; return False if no consumer holds it any more."""
        return bool((yield from run(ACKNOWLEDGE, [key], GROUP, entry)))

    def dead_letter(self, entry: Entry, dead: str, keep: int, fields: Iterable[Argument]) -> Operation[bool]:
        """Move an entry to the stream ``dead`` and trim that to ``keep`` entries; return False if it is not held."""
        args = (GROUP, self.consumer, entry.id, keep, *fields)
        return bool((yield from run(DEAD_LETTER, [entry.key, dead], *args)))

    def give_back(self, copies: Iterable[Copy]) -> Operation[int]:
        """Move held entries to the end of their streams; return how many were still held."""
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
        """Append a message that lives for ``lifetime`` ms; restart the time to live of the keys in ``expires``."""
        fields: Command = ("m", data) if lifetime is None else ("m", data, "x", lifetime)
        yield from ask(("XADD", key, "*", *fields), *_touching(expires))

    def touch(self, expires: Mapping[str, int]) -> Operation[None]:
        """Restart the time to live, in ms, of keys."""
        if expires:
            yield from ask(*_touching(expires))

    def size(self, keys: Sequence[str]) -> Operation[int]:
        """Return how many undelivered messages wait; delete expired ones at the head."""
        return int((yield from run(SIZE, keys, GROUP, 1000)))

    def purge(self, keys: Sequence[str]) -> Operation[int]:
        """Delete undelivered messages; return how many."""
        total = 0
        while deleted := int((yield from run(PURGE, keys, GROUP, PURGE_CHUNK))):
            total += deleted
        return total

    def delete(self, keys: Sequence[str]) -> Operation[None]:
        """Delete streams with all their entries.

        A stream that is created again takes its ids from the clock alone.  So this operation ends in a later
        millisecond of the server's clock.  Otherwise a new message could get the id of a deleted one, and a late
        acknowledgement of the deleted one would delete the new one.
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
