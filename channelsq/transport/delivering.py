"""The delivering part of a channel: a local batch, and the consumers that receive its messages."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from time import monotonic

from redis.exceptions import ResponseError

from channelsq.redis_core.compact import ForeignPayload, NewerPayload
from channelsq.redis_core.entries import Entry
from channelsq.redis_core.operations import ask
from channelsq.redis_core.poll_plan import SLICE, PollPlan
from channelsq.redis_core.server_clock import TIME, ServerClock
from channelsq.transport import dead_letters, payloads
from channelsq.transport.acking import AcknowledgingChannel

logger = logging.getLogger("channelsq.transport")

#: Seconds that an acknowledgement may wait for the rest of its batch.
HOLD = 0.005

#: The most orders of queues that are cached.
_MOST_CACHED = 256


class DeliveringChannel(AcknowledgingChannel):
    """Delivers the messages that polls have brought."""

    max_deaths: int | None
    max_dead_letters: int
    priority_steps: list[int]
    plan: PollPlan

    def _start_delivering(self) -> None:
        self._start_acknowledging()
        self._buffer: deque[Entry] = deque()
        self._returning: deque[str] = deque()  # tags of the messages to give back
        self._subscribers = {}
        self._queues: dict[str, str] = {}  # by the key of the stream
        self._orders: dict[tuple[str, ...], list[str]] = {}
        self._delivered_at: float | None = None
        self._clock = ServerClock()

    def key_of(self, queue: str, priority: int) -> str:
        """Return the stream of a queue's messages with a priority."""
        step = self.priority(priority)
        return self.streams.key(f"{queue}{self.sep}{step}" if step else queue)

    def keys_of(self, queue: str) -> list[str]:
        """Return a queue's streams, the most urgent first."""
        keys = [self.key_of(queue, step) for step in self.priority_steps]
        self._queues.update(dict.fromkeys(keys, queue))
        return keys

    def _in_order(self, queues: list[str]) -> list[str]:
        """Return the streams of queues, in the order in which they are served."""
        order = tuple(queues)
        keys = self._orders.get(order)
        if keys is None:
            if len(self._orders) >= _MOST_CACHED:
                self._orders.clear()
            by_queue = [self.keys_of(queue) for queue in queues]
            keys = self._orders[order] = [key for step in zip(*by_queue, strict=True) for key in step]
        return keys

    def queue_of(self, key: str) -> str:
        """Return the queue that a stream belongs to."""
        return self._queues[key]

    def server_time(self) -> int:
        """Return the server's time in ms since 1970."""
        if not self._clock.is_set:
            (reply,) = self.carry_out(ask(TIME))
            self._clock.set(reply, monotonic())
        return self._clock.milliseconds(monotonic())

    def give_back_waiting(self) -> None:
        """Give back the messages that :meth:`give_back_later` has recorded.

        Raises:
            redis.ConnectionError: the connection is still lost; the rest is kept for the next attempt.
        """
        while self._returning:
            tag = self._returning[0]
            try:
                self.stream_qos.reject(tag, requeue=True)
            except ResponseError as error:  # Redis was emptied meanwhile
                logger.warning("%s cannot be given back: %s", tag, error, extra={"action": "give_back_failed"})
                self.stream_qos.discard(tag)
            self._returning.popleft()

    def give_back_later(self, delivery_tag: str) -> None:
        """Record a delivered message, to be given back when there is a connection; from any thread."""
        self._returning.append(delivery_tag)

    def unread(self, entries: Iterable[Entry]) -> None:
        """Make the next :meth:`poll` return entries of the last one again, before others."""
        self._buffer.extendleft(reversed([*entries]))

    # -- Delivery

    def can_deliver(self) -> bool:
        """Return whether the buffer has a message and there is credit for it."""
        return bool(self._buffer) and self.qos.can_consume()

    def deliver(self, limit: int | None = None) -> int:
        """Deliver from the buffer as far as credit and time allow; return the number of messages.

        Args:
            limit: the most messages; None for as many as one turn of the event loop should take.
        """
        delivered = 0
        started = flushed = monotonic()
        if limit is not None and self._delivered_at is not None:
            self.plan.measure(started - self._delivered_at)
        buffer, qos = self._buffer, self.qos
        while buffer and not self.closed and qos.can_consume():
            delivered += self._deliver_entry(buffer.popleft())
            now = monotonic()
            if limit is not None:
                if delivered >= limit:
                    break
                continue
            if now - flushed > HOLD:
                self.flush_acks(wait=False)
                flushed = now
            if now - started > SLICE:
                break
        if limit is None and delivered:
            self.plan.measure((monotonic() - started) / delivered)
        # Without an event loop a message's time is that from one call to the next, if another one is waiting.
        self._delivered_at = monotonic() if limit is not None and self._buffer else None
        return delivered

    def _deliver_entry(self, entry: Entry) -> bool:
        """Pass a message to its consumer; return False if it had no consumer, was expired or unreadable."""
        subscribers = self._subscribers.get(self._queues.get(entry.key, ""))
        if not subscribers:
            self.give_back_fetched([entry])
            return False
        payload = self.open(entry)
        if payload is None:
            return False
        callback, no_ack = next(reversed(subscribers.values()))
        if no_ack:
            self.stream_qos.drop(entry)
        callback(payload)
        return True

    def open(self, entry: Entry) -> payloads.Payload | None:
        """Return an entry's payload with its delivery tag; None if it was expired or unreadable, and is settled."""
        try:
            payload = self.unpack(entry)
        except NewerPayload as error:
            dead_letters.keep_newer(self, entry, error)
            return None
        if payload is not None:
            end = payloads.expires(payload, entry.id)
            # A message that was given to a consumer in time does not expire if that consumer dies.
            if end is not None and end <= self.server_time() and not entry.redelivered:
                self.stream_qos.drop(entry)
                return None
        return payload

    def unpack(self, entry: Entry) -> payloads.Payload | None:
        """Return an entry's payload with its delivery tag; None if it is unreadable, or is a dead letter now.

        The message may have expired.

        Raises:
            NewerPayload: only a newer process can read it.
        """
        try:
            payload = payloads.decode(entry.data)
        except NewerPayload:
            raise
        except ForeignPayload as error:
            logger.error(
                "%s %s is not a message of Kombu's and was dropped: %s", entry.key, entry.id, error,
                extra={"action": "foreign_payload"},
            )  # fmt: skip
            self.stream_qos.drop(entry)
            return None
        if self.max_deaths and entry.deaths >= self.max_deaths:
            dead_letters.dead_letter(self, entry, payload, "its last consumer let its lease end")
            return None
        return payloads.delivered(payload, entry)
