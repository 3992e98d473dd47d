"""Marks of runs that have begun and must not be repeated; see :mod:`channelsq.delivery.attempts`."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.operations import ask

if TYPE_CHECKING:
    from channelsq.layers.groups.group_stores import RedisGroups

#: Seconds that the mark of a run without a reported end is kept: its message may wait so long for a worker.
KEPT = 86_400.0

#: Seconds that a mark outlives its run if the message is acknowledged after the end is recorded.
KEPT_AFTER = 600.0

#: Seconds between two deletions of expired marks by a process.
CLEAN_EVERY = 60.0

#: The most marks in the memory of a process; the oldest are dropped.
MOST_IN_MEMORY = 10_000


class BegunStore(ABC):
    """The marks of a layer.  Safe to call from any thread."""

    @abstractmethod
    def begin(self, mark: str) -> bool:
        """Write a mark; return False if it exists.

        Raises:
            BrokerUnavailable: the store does not answer.
        """

    @abstractmethod
    def has(self, mark: str) -> bool:
        """Return whether a mark exists; errors as :meth:`begin`."""

    @abstractmethod
    def end(self, mark: str, after: float) -> None:
        """Delete a mark in so many seconds; errors as :meth:`begin`."""

    @abstractmethod
    def flush(self) -> None:
        """Delete every mark; errors as :meth:`begin`."""


class MemoryBegun(BegunStore):
    """The marks of a layer inside one process: its messages die with its worker, but one may be given back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: dict[str, None] = {}

    def begin(self, mark: str) -> bool:
        with self._lock:
            if mark in self._marks:
                return False
            self._marks[mark] = None
            if len(self._marks) > MOST_IN_MEMORY:
                del self._marks[next(iter(self._marks))]
            return True

    def has(self, mark: str) -> bool:
        with self._lock:
            return mark in self._marks

    def end(self, mark: str, after: float) -> None:
        with self._lock:
            self._marks.pop(mark, None)

    def flush(self) -> None:
        with self._lock:
            self._marks.clear()


class RedisBegun(BegunStore):
    """Marks in the Redis that holds the groups: one sorted set, by the unix time at which each expires.

    It is one key without a time to live, so that no eviction policy for such keys (``volatile-*``) drops a mark.

    Args:
        groups: the groups in that Redis.
    """

    def __init__(self, groups: RedisGroups) -> None:
        self.groups = groups
        #: The sorted set's key.
        self.key = f"{groups.prefix}:begun"
        self._clean_at = 0.0

    def begin(self, mark: str) -> bool:
        now = time.time()
        if now >= self._clean_at:
            self._clean_at = now + CLEAN_EVERY
            self._do(("ZREMRANGEBYSCORE", self.key, "-inf", repr(now)))
        return bool(self._do(("ZADD", self.key, "NX", repr(now + KEPT), mark)))

    def has(self, mark: str) -> bool:
        expires = self._do(("ZSCORE", self.key, mark))
        return expires is not None and float(expires) > time.time()

    def end(self, mark: str, after: float) -> None:
        if after:
            self._do(("ZADD", self.key, "XX", repr(time.time() + after), mark))
        else:
            self._do(("ZREM", self.key, mark))

    def flush(self) -> None:
        self._do(("UNLINK", self.key))

    def _do(self, command: Command) -> Reply:
        (reply,) = self.groups.carry_out(lambda: ask(command))
        return reply
