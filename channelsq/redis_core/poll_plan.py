"""The plan of a stream consumer: the next request, and what a reply says about the streams.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from channelsq.redis_core.commands import Command, Reply, pack
from channelsq.redis_core.entries import Entry, read_streams
from channelsq.redis_core.scripts import TAKE, TAKE_OVER
from channelsq.redis_core.stream_consumer import CHUNK, StreamConsumer
from channelsq.redis_core.suspects import Suspects

#: Seconds of work to request in one poll, and to deliver before the event loop serves other things.
SLICE = 0.010

#: Seconds that a poll waits while suspects wait for space in quarantine.
SUSPECTS_EVERY = 0.05

#: The most commands that are cached in packed form.
_MOST_CACHED = 256


@dataclass
class Poll:
    """A poll: one request for messages."""

    #: ``read`` waits for messages, ``take`` requests the waiting ones, ``more`` reads the one busy stream, ``look`` the
    #: streams before it, ``claim`` takes over from dead consumers, ``wake`` requests an immediate answer.
    kind: Literal["read", "take", "more", "look", "claim", "wake"]
    #: COUNT of a ``read``; the most messages that the other kinds may return.
    asked: int
    command: Command | bytes
    #: The streams that the poll reads.
    keys: Sequence[str] = field(default_factory=list)
    #: The free part of the quarantine that a ``claim`` tells the server.
    room: float = 0.0

    def found_others_empty(self, key: str, steps: int) -> bool:
        """Return whether the poll brought messages of ``key`` alone and found the queues of its priority empty.

        Args:
            key: the one stream that had messages.
            steps: the number of streams of a queue, one for each priority.
        """
        if self.kind != "take":
            return True  # it read all of them; a "take" stops when it has enough
        queues = len(self.keys) // steps
        return self.keys.index(key) % queues == queues - 1


#: Requests an immediate answer.
WAKE = Poll("wake", 0, ("PING",))


class PollPlan:
    """Decides what each poll of one consumer requests.

    Lua, which can read one stream after the other, reads each message and writes it again.  So a single busy stream is
    read without Lua, and now and then the streams before it are read, too.

    Args:
        consumer: the source of the commands.
        suspects: the suspects that the consumer holds.
        steps: the number of streams of a queue, one for each priority.
        batch_size: the most messages that one poll may bring.
        max_deaths: the number of deaths that makes a dead letter; None for no limit.
    """

    def __init__(
        self, consumer: StreamConsumer, suspects: Suspects, steps: int, batch_size: int, max_deaths: int | None
    ) -> None:
        self._consumer = consumer
        self._suspects = suspects
        self._steps = steps
        self._batch_size = batch_size
        self._max_deaths = max_deaths
        self._reads: dict[tuple[str | int | None, ...], bytes] = {}
        self._pace = 0.0  # average seconds for one message
        self._looked_last = False  # whether the last poll read the streams before the busy one
        #: The time of the next ``claim``; immediately when consuming begins.
        self.take_over_at = 0.0
        #: The time of the last ``look``.
        self.looked_at = 0.0
        self.begin()

    def begin(self) -> None:
        """Start with one message again, because the queues have changed."""
        self._ramp = 1  # a consumer that wants one message leaves the rest to others
        #: Whether a stream may hold more messages than the last poll brought.
        self.backlog = True
        #: The only stream that had messages when all were read last; a change of queues resets it.
        self.busy: str | None = None

    def measure(self, seconds: float) -> None:
        """Record the seconds that one message took."""
        self._pace = seconds if not self._pace else self._pace * 0.7 + seconds * 0.3

    def wanted(self, free: int | None) -> int:
        """Return how many messages to request, with credit for ``free`` more; None for unlimited credit."""
        wanted = min(self._batch_size, self._ramp)
        if free is not None:
            wanted = min(wanted, free)
        if self._pace:
            wanted = min(wanted, int(SLICE / self._pace))
        return max(1, wanted)

    # -- Polls

    def claim(self, keys: Sequence[str], wanted: int, room: float, now: float, every: float) -> Poll:
        """Return the poll that takes over from dead consumers; the next one is due in ``every`` seconds."""
        self.take_over_at = now + every
        wanted = min(wanted, CHUNK)
        command = self._consumer.take_over_command(keys, wanted, self._max_deaths, room)
        return Poll("claim", wanted, command, room=room)

    def next(self, keys: Sequence[str], wanted: int, timeout: float | None, now: float) -> Poll:
        """Return the next poll for new messages.

        Args:
            keys: the streams, in the order in which they are served.
            wanted: the number of messages to request.
            timeout: the most seconds to wait; None for no limit, 0 for not at all.
            now: the time.
        """
        if timeout == 0 or (len(keys) > 1 and self.backlog):
            return self._at_once(keys, wanted, now)
        # COUNT applies to each stream.  With less credit than streams, several streams that get a message at the same
        # moment can bring more messages than there is credit for; the rest waits in the buffer.
        # Request two messages if two are wanted: after a poll that is filled, the next one follows immediately.
        count = max(1, min(wanted, 2), wanted // len(keys))
        if self._suspects.waited_for:
            timeout = min(timeout or SUSPECTS_EVERY, SUSPECTS_EVERY)
        count = rounded(count)
        return Poll("read", count, self._packed_read(keys, count, int((timeout or 0) * 1000)))

    def _at_once(self, keys: Sequence[str], wanted: int, now: float) -> Poll:
        busy = self.busy
        if busy is None or busy not in keys:
            return Poll("take", wanted, self._consumer.take_command(keys, wanted), keys)
        # Never twice in a row: if polls are slow to follow each other, the busy stream would never be read.
        may_look = now - self.looked_at >= SLICE and not self._looked_last
        if may_look and (ahead := keys[: keys.index(busy)]):
            self.looked_at, self._looked_last = now, True
            return Poll("look", wanted, self._consumer.take_command(ahead, wanted))
        self._looked_last = False
        wanted = rounded(wanted)
        return Poll("more", wanted, self._packed_read([busy], wanted, None))

    def _packed_read(self, keys: Sequence[str], count: int, block: int | None) -> bytes:
        """Return the command that requests messages, from a cache of the few variants."""
        way: tuple[str | int | None, ...] = (self._consumer.consumer, count, block, *keys)
        packed = self._reads.get(way)
        if packed is None:
            if len(self._reads) >= _MOST_CACHED:
                self._reads.clear()
            packed = self._reads[way] = pack([self._consumer.read_command(keys, count, block)])
        return packed

    # -- Replies

    def on_missing_script(self, poll: Poll) -> list[Command]:
        """Return the commands that load the scripts of polls into the server before the next poll."""
        if poll.kind == "claim":
            self.take_over_at = 0.0
        return [TAKE.load_command, TAKE_OVER.load_command]

    def read(self, poll: Poll, reply: Reply) -> list[tuple[str, list[Entry]]]:
        """Return the entries that a poll brought, by the keys of their streams."""
        found = list(read_streams(reply))
        if poll.kind == "look":
            if found:
                self.busy = None  # another stream has messages, too
            return found
        if poll.kind != "more":
            alone = found[0][0] if len(found) == 1 else None
            self.busy = alone if alone is not None and poll.found_others_empty(alone, self._steps) else None
        sizes = [len(entries) for _, entries in found]
        self.backlog = (sum(sizes) if poll.kind == "take" else max(sizes, default=0)) >= poll.asked
        if self.backlog:
            self._ramp = min(self._ramp * 2, self._batch_size)
        return found

    def read_claim(self, poll: Poll, reply: Reply) -> list[Entry]:
        """Return the entries that a ``claim`` brought."""
        stopped, streams = reply
        entries = [entry for _, found in read_streams(streams, claimed=True) for entry in found]
        # Use the space that the server saw, not the current one: another thread may have finished a suspect since.
        left = poll.room - sum(self._suspects.cost(entry.deaths) for entry in entries)
        self._suspects.stopped(left if stopped else None)
        if len(entries) >= poll.asked:
            self.take_over_at = 0.0  # dead consumers may hold more
        return entries


def rounded(count: int) -> int:
    """Return the largest count up to ``count`` of the few that have a cached command."""
    return count if count <= 2 else 1 << (count.bit_length() - 1)
