"""Capacity on a Kombu broker: the size of queues, and whether another message may be sent."""

from __future__ import annotations

import json
import time
from typing import Any

from kombu import Queue
from kombu.common import maybe_declare

from channelsq.layers.contract.capacity import MOST_QUEUES, CapacityWindows
from channelsq.layers.kombu_broker import kombu_queue_internals
from channelsq.layers.wire.shared_clock import Clock
from channelsq.layers.wire.wire_forms import EXPIRES_HEADER, is_expired
from channelsq.redis_core.operations import run
from channelsq.redis_core.scripts import DROP_EXPIRED
from channelsq.redis_io.blocking import carry_out


class Gate:
    """The check of capacity before a send.

    Args:
        kind: ``"amqp"``, ``"redis"``, ``"memory"`` or ``""``: how the broker's queues can be inspected.
        clock: the clock by which messages expire; None if the broker expires them.
    """

    def __init__(self, kind: str, clock: Clock | None) -> None:
        self._kind = kind
        self._clock = clock
        self._windows = CapacityWindows()
        self._pruned: dict[str, float] = {}

    def knows_room(self, queue: Queue) -> bool:
        """Reserve space for one message without asking the broker; see :meth:`CapacityWindows.take`."""
        return self._windows.take(queue.name)

    def admit(self, channel: Any, queue: Queue, capacity: int, name: str) -> None:
        """Raise ChannelFull for the queue ``name`` if it is full; see :meth:`CapacityWindows.admit`."""

        def depth() -> int:
            depth = self.depth(channel, queue)
            return depth if depth < capacity else depth - self._prune(channel, queue)

        self._windows.admit(queue.name, capacity, depth, name)

    def depth(self, channel: Any, queue: Queue) -> int:
        """Return how many messages wait in the queue; some may be expired."""
        waiting = kombu_queue_internals.size(channel, queue.name)
        if waiting is not None:
            return waiting
        maybe_declare(queue, channel)
        return int(channel.queue_declare(queue.name, passive=True).message_count)

    def expiry_of_oldest(self, channel: Any, queue: Queue) -> float | None:
        """Return when the message at the head of a queue expires; None if it cannot be read."""
        raw = channel.client.lindex(queue.name, -1) if self._kind == "redis" else None
        try:
            headers = json.loads(raw)["headers"] if raw else {}
            return float(headers[EXPIRES_HEADER])
        except (KeyError, TypeError, ValueError):  # not a message of channelsq
            return None

    def _prune(self, channel: Any, queue: Queue) -> int:
        """Delete expired messages at the head of a full queue; return how many.

        AMQP brokers expire messages themselves.  On transports other than Redis and memory an expired message counts
        until a worker consumes it.  A process checks at most once a second.
        """
        now, name = time.monotonic(), queue.name
        if now - self._pruned.get(name, -1e9) < 1:
            return 0
        if len(self._pruned) > MOST_QUEUES:
            self._pruned.clear()
        self._pruned[name] = now
        if self._kind == "redis" and self._clock is not None:
            key = channel.global_keyprefix + name
            dropping = run(DROP_EXPIRED, [key], repr(self._clock.now()), EXPIRES_HEADER)
            return int(carry_out(channel.pool, dropping))
        if self._kind == "memory":
            return kombu_queue_internals.drop(channel, name, lambda raw: is_expired(raw["headers"], self._clock))
        return 0
