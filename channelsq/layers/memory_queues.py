"""The queues of the in-memory layer, with the messages that its readers hold; one lock guards all of it."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from channelsq.core import names
from channelsq.exceptions import ChannelFull

#: The most messages that may be delayed, on all channels together.
MOST_DELAYED = 10_000

#: The most channels whose messages are counted.
MOST_COUNTED = 10_000

#: Seconds before the redelivery of a message that its consumer has rejected, or whose channel was full at the end of
#: its delay: a broker would redeliver it immediately, in a loop.
AGAIN_AFTER = 0.1


class Task(NamedTuple):
    """The attributes of a retry of a consumer's task, as in a Celery message."""

    headers: dict[str, Any]
    kwargs: dict[str, Any]
    embed: Any


class Entry(NamedTuple):
    """A message in a queue."""

    number: int
    #: The time.monotonic() at which it expires.
    deadline: float
    channel: str
    body: bytes
    id: str = ""
    #: Of a retry; None for a message that was sent to the channel.
    task: Task | None = None
    #: Whether a reader held it before.
    is_redelivered: bool = False


class MemoryQueues:
    """Queues by the full name of their channel; all ``!`` channels of a process share the queue of their prefix.

    Args:
        expiry: seconds that an unread message lives.
        capacity_of: returns the most unread messages of a channel.
    """

    def __init__(self, expiry: float, capacity_of: Callable[[str], int]) -> None:
        self._expiry = expiry
        self._capacity_of = capacity_of
        #: Guards everything; notified of every change.
        self.changed = threading.Condition()
        self.queues: dict[str, deque[Entry]] = {}
        self.unread: Counter[str] = Counter()
        self.delayed: list[tuple[float, int, Entry]] = []
        #: How many messages were put on each channel that workers consume.
        self.sent: Counter[str] = Counter()
        #: The messages that readers hold, by number.
        self.held: dict[int, Entry] = {}
        self._numbers = itertools.count()
        self._swept = time.monotonic()
        self._wakes = 0

    # -- putting

    def put(self, channel: str, body: bytes, delay: float = 0.0, task: Task | None = None) -> None:
        """Put a message on a channel, now or after a delay.

        Raises:
            ChannelFull: the channel is full; a retry without a delay is always accepted.
        """
        identity = str(task.headers["id"]) if task is not None else "" if "!" in channel else str(uuid.uuid4())
        entry = Entry(next(self._numbers), 0.0, channel, body, identity, task)
        with self.changed:
            if delay > 0:
                if len(self.delayed) >= MOST_DELAYED:
                    raise ChannelFull(channel, MOST_DELAYED)
                self._delay(entry, delay)
            else:
                self._put(entry)
            self.changed.notify_all()

    def _delay(self, entry: Entry, seconds: float) -> None:
        heapq.heappush(self.delayed, (time.monotonic() + seconds, entry.number, entry))

    def _put(self, entry: Entry) -> None:
        self._sweep()
        key = _key_of(entry.channel)
        queue = self.queues.setdefault(key, deque())
        self._drop_expired(key, queue)
        capacity = self._capacity_of(entry.channel)
        # A retry of a task replaces a message that was read.
        if entry.task is None and self.unread[entry.channel] >= capacity:
            raise ChannelFull(entry.channel, capacity)
        queue = self.queues.setdefault(key, queue)
        queue.append(entry._replace(deadline=time.monotonic() + self._expiry))
        self.unread[entry.channel] += 1
        if entry.task is None:
            self._count(entry.channel)

    def _count(self, channel: str) -> None:
        """Count a message to a channel that workers consume."""
        is_counted = channel in self.sent or len(self.sent) < MOST_COUNTED
        if is_counted and not names.is_process_channel(channel) and not names.is_single_reader(channel):
            self.sent[channel] += 1

    # -- taking

    def take(
        self, wanted: Sequence[str], most: int, seconds: float, ended: Callable[[], bool] | None = None
    ) -> list[Entry]:
        """Take messages from any of the wanted channels, the oldest first.

        Args:
            wanted: the channels; ``"name!"`` stands for every ``name!…`` channel.
            most: the most messages.
            seconds: how long to wait for the first.
            ended: returns True to stop waiting; if given, the messages are held until they are :meth:`settled`.
        """
        deadline = time.monotonic() + seconds
        with self.changed:
            wakes = self._wakes
            while True:
                wake_at = self._release_delayed()
                found = self._take_now(wanted, most)
                if found:
                    if ended is not None:
                        self.held.update((entry.number, entry) for entry in found)
                    return found
                wait = min(deadline, wake_at) - time.monotonic()
                if time.monotonic() >= deadline or wakes != self._wakes or (ended is not None and ended()):
                    return []
                self.changed.wait(max(0.0, wait))

    def wake(self) -> None:
        """End the wait of all readers."""
        with self.changed:
            self._wakes += 1
            self.changed.notify_all()

    def take_all(self, key: str) -> list[Entry]:
        """Take all messages of one queue."""
        with self.changed:
            queue = self.queues.get(key, deque())
            self._drop_expired(key, queue)
            waiting = list(queue)
            for entry in waiting:
                self._remove(key, entry)
            return waiting

    def _take_now(self, wanted: Sequence[str], most: int) -> list[Entry]:
        found: list[Entry] = []
        while len(found) < most and (entry := self._take_one(wanted)) is not None:
            found.append(entry)
        return found

    def _take_one(self, wanted: Sequence[str]) -> Entry | None:
        """Return the oldest entry of the wanted channels, so that no channel starves another."""
        best: tuple[Entry, str] | None = None
        for channel in wanted:
            key = _key_of(channel)
            queue = self.queues.get(key)
            if queue is None or not self._drop_expired(key, queue):
                continue
            entry = queue[0] if channel == key else next((entry for entry in queue if entry.channel == channel), None)
            if entry is not None and (best is None or entry.number < best[0].number):
                best = entry, key
        if best is None:
            return None
        self._remove(best[1], best[0])
        return best[0]

    def _release_delayed(self) -> float:
        """Put due messages on their channels; return the time at which the next one is due."""
        now = time.monotonic()
        while self.delayed and self.delayed[0][0] <= now:
            _due, _number, entry = heapq.heappop(self.delayed)
            try:
                self._put(entry)
            except ChannelFull:
                # Its sender cannot be told any more, so the message is delayed until the channel has space.
                self._delay(entry, AGAIN_AFTER)
        return self.delayed[0][0] if self.delayed else float("inf")

    # -- held messages

    def settled(self, entry: Entry) -> bool:
        """Remove a message that is done; return False if it was not held, because it was given back."""
        with self.changed:
            return self.held.pop(entry.number, None) is not None

    def give_back(self, entries: Iterable[Entry], *, redelivered: bool = True, after: float = 0.0) -> None:
        """Put held messages back to their places; skip those that are not held any more.

        Args:
            entries: the messages.
            redelivered: whether they are marked as redelivered.
            after: seconds before they can be read.
        """
        with self.changed:
            for entry in sorted(entries, reverse=True):
                if self.held.pop(entry.number, None) is None:
                    continue
                again = entry._replace(is_redelivered=entry.is_redelivered or redelivered)
                if after:
                    self._delay(again, after)
                else:  # its place was counted before, so the capacity is not checked again
                    self.queues.setdefault(_key_of(entry.channel), deque()).appendleft(again)
                    self.unread[entry.channel] += 1
            self.changed.notify_all()

    # -- state

    def depth(self, channel: str) -> int:
        """Return how many messages wait in a channel."""
        with self.changed:
            queue = self.queues.get(channel)
            if queue is not None:
                self._drop_expired(channel, queue)
            return self.unread[channel]

    def state(self, channel: str) -> tuple[int, int, float | None, int]:
        """Return how many messages wait in a channel and are held, the seconds that the oldest waits, and all sent."""
        with self.changed:
            waiting = self.depth(channel)
            queue = self.queues.get(channel)
            oldest = time.monotonic() + self._expiry - queue[0].deadline if queue else None
            held = sum(entry.channel == channel for entry in self.held.values())
            return waiting, held, oldest, self.sent[channel]

    def clear(self) -> None:
        """Delete every message."""
        with self.changed:
            self.queues.clear()
            self.unread.clear()
            self.delayed.clear()
            self.held.clear()
            self.sent.clear()

    # -- expiry

    def _drop_expired(self, key: str, queue: deque[Entry]) -> bool:
        """Drop expired messages; return whether any are left."""
        now = time.monotonic()
        while queue and queue[0].deadline <= now:
            self._remove(key, queue[0])
        return bool(queue)

    def _sweep(self) -> None:
        """Drop expired messages of channels that no code reads or sends to any more, such as a request's body."""
        now = time.monotonic()
        if now - self._swept >= self._expiry:
            self._swept = now
            for key, queue in list(self.queues.items()):
                self._drop_expired(key, queue)

    def _remove(self, key: str, entry: Entry) -> None:
        queue = self.queues[key]
        queue.remove(entry)
        self.unread[entry.channel] -= 1
        if not self.unread[entry.channel]:
            del self.unread[entry.channel]
        if not queue:
            self.queues.pop(key, None)


def _key_of(channel: str) -> str:
    """Return the name of a channel's queue."""
    return names.process_part(channel) if names.is_process_channel(channel) else channel
