"""The source of a layer on any broker that Kombu supports.

Kombu's connections are not made for several threads.  The polling thread has the connection to itself.  While
messages are being handled it releases the connection between short waits, so that they are acknowledged soon.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from time import monotonic
from typing import Any

import kombu
from kombu import Consumer
from kombu import Message as KombuMessage
from kombu.exceptions import OperationalError

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.death_marks import forget_marks, leave_mark
from channelsq.layers.contract.source_contract import Plain, Source, SourceOptions, TaskMessage
from channelsq.layers.kombu_broker.amqp_heartbeats import Pulse
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.kombu_broker.worker_connection import Connection
from channelsq.layers.wire.wire_forms import is_expired

logger = logging.getLogger("channelsq.worker")

#: Seconds of one wait for a message while others are handled, and while none is.
BUSY, QUIET = 0.01, 0.25

#: Seconds between two checks of heartbeats.
LOOK_EVERY = 0.5

#: The most messages that are remembered because their acknowledgement was lost with a connection.
MOST_REMEMBERED = 10_000

#: A message's id, and how often it was retried: another try has the same id.
Key = tuple[Any, Any]


class KombuDelivery:
    """A Kombu message that a source holds.

    Args:
        message: Kombu's message.
        number: the number of its connection.
        error: the reason why it is unreadable, or None.
    """

    __slots__ = ("error", "is_done", "key", "marks", "message", "number")

    def __init__(self, message: KombuMessage, number: int, error: Exception | None = None) -> None:
        self.message = message
        self.number = number
        self.error = error
        self.key: Key = _key_of(message)
        #: Whether the message is done, and must not run again.
        self.is_done = False
        #: See :mod:`channelsq.layers.contract.death_marks`.
        self.marks: tuple[str, ...] = ()

    def acknowledge(self) -> None:
        """Acknowledge the message, once.  Needs the connection; raises the transport's errors."""
        if not self.message.acknowledged:
            self.message.ack()


class KombuSource(Source[KombuDelivery]):
    """Reads the queues of a layer through Kombu.

    Args:
        layer: the layer.
        options: see :class:`SourceOptions`.
    """

    def __init__(self, layer: KombuBroker, options: SourceOptions) -> None:
        self._layer = layer
        self._options = options
        self._channels = dict.fromkeys(options.channels)
        self._room = 0  # for messages that wait for their ETA
        self._lock = threading.RLock()
        self._connection: kombu.Connection | None = None
        self._consumer: Consumer | None = None
        #: The number of the connection, the first being 1.
        self.connections = 0
        self._arrived: list[KombuDelivery] = []
        self._unread: list[KombuDelivery] = []
        #: The held messages, by :func:`_key_of`.
        self._held: dict[Key, KombuDelivery] = {}
        #: The settled messages, each with the action that concludes it.
        self._settled: deque[tuple[KombuDelivery, Callable[[], None]]] = deque()
        #: The keys of messages that are done while the broker does not know it.
        self._done: dict[Key, None] = {}
        self._looked = 0.0
        self._pulse: Pulse | None = None
        self._ends = False

    # -- the connection

    @cached_property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The exceptions of the transport."""
        connection = self._layer.open_connection(Connection)
        return (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)

    def connect(self) -> bool:
        if self._connection is not None:
            return False
        with self._lock:
            connection = self._layer.open_connection(Connection, listens=True)
            try:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
                consumer = Consumer(
                    connection.default_channel,
                    queues=[self._layer.queue(name) for name in self._channels],
                    accept=sorted(self._options.accept),
                    on_message=self._arrive,
                    on_decode_error=self._arrive,
                )
                self._connection, self._consumer = connection, consumer
                self._room = 0
                self._set_prefetch()
                self.connections += 1
                consumer.consume()
            except BaseException:
                self._connection = self._consumer = None
                connection.collect()
                raise
        if self._pulse is None and connection.heartbeat:
            self._pulse = Pulse(lambda: self._connection, float(connection.heartbeat))
            self._pulse.start()
        return True

    def lost(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._consumer = None
            for delivery in (*self._arrived, *self._unread):
                self.abandon(delivery)
            self._arrived.clear()
            self._unread.clear()
            self.connections += 1  # the broker has the messages of the lost connection again
            if connection is not None:
                connection.collect()

    def interrupt(self) -> None:
        self._ends = True

    def cut(self) -> None:
        """Close the connection: the broker then has the unacknowledged messages again."""
        self.close()

    def close(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        with self._lock:
            if self._layer.in_process:  # Kombu's in-memory transport does not give messages back itself
                for delivery in tuple(self._held.values()):
                    self.give_back(delivery)
            self.flush()
            connection, self._connection = self._connection, None
            self._consumer = None
            self.connections += 1  # the broker has the held messages again
            if connection is None:
                return
            try:
                connection.close()
            except Exception as error:
                logger.warning("%s: closed badly: %s", shown(self._layer.url), error, extra={"action": "close_failed"})

    # -- reading

    def read(self, channel: str) -> None:
        self._channels[channel] = None
        consumer, queue = self._consumer, self._layer.queue(channel)
        if consumer is not None and not consumer.consuming_from(queue):
            consumer.add_queue(queue)
            consumer.consume()

    def cease(self, channel: str) -> None:
        self._channels.pop(channel, None)
        if self._consumer is not None:
            self._consumer.cancel_by_queue(self._layer.queue(channel).name)

    def poll(self, seconds: float) -> Sequence[KombuDelivery]:
        until = monotonic() + seconds
        while True:
            with self._lock:
                self._flush()
                # For other brokers polling means taking: Redis pops a message for a connection that no thread reads.
                if seconds or self._layer.is_amqp:
                    self._drain(min(max(0.0, until - monotonic()), BUSY if self._held else QUIET))
                found = self._hold_arrived()
                self._beat()
            if found or monotonic() >= until or self._ends:
                return found

    def _arrive(self, message: KombuMessage, error: Exception | None = None) -> None:
        self._arrived.append(KombuDelivery(message, self.connections, error))

    def _drain(self, seconds: float) -> None:
        """Wait for a message, and take all that have arrived."""
        connection: Any = self._connection
        try:
            connection.drain_events(timeout=seconds)
            while self._layer.is_amqp and len(self._arrived) < self._options.credit:
                connection.drain_events(timeout=0)
        except TimeoutError:
            return

    def _hold_arrived(self) -> list[KombuDelivery]:
        found, self._unread = self._unread, []
        for place, delivery in enumerate(self._arrived):
            try:
                if not self._knows(delivery):
                    self._held[delivery.key] = delivery
                    found.append(delivery)
            except BaseException:
                self._unread, self._arrived = found, self._arrived[place:]
                raise
        self._arrived.clear()
        return found

    def _knows(self, delivery: KombuDelivery) -> bool:
        """Return whether a redelivered message is not new, because this source holds or had it.

        The broker redelivers the messages of a lost connection, and those for which Kombu's ``visibility_timeout`` is
        too short.  A publisher sends a message again that the broker did not confirm.
        """
        held = self._held.get(delivery.key)
        if held is not None:
            before, was_lost = held.message, self.is_lost(held)
            held.message, held.number = delivery.message, delivery.number
            if not was_lost and before.delivery_tag != delivery.message.delivery_tag and not before.acknowledged:
                before.ack()  # a duplicate
            return True
        if delivery.key in self._done:
            del self._done[delivery.key]
            delivery.message.ack()
            return True
        return False

    def _beat(self) -> None:
        connection: Any = self._connection
        now = monotonic()
        if connection.heartbeat and now - self._looked > LOOK_EVERY:
            self._looked = now
            connection.heartbeat_check()

    def has_credit(self) -> bool:
        return self._connection is None or len(self._held) - self._room < self._options.credit

    def make_room(self, number: int) -> None:
        with self._lock:
            self._room += number
            if self._consumer is not None:
                self._set_prefetch()

    def _set_prefetch(self) -> None:
        connection: Any = self._connection
        # RabbitMQ applies a consumer's limit to all consumers of a channel if it is global.
        is_global = not connection.qos_semantics_matches_spec
        self._consumer.qos(prefetch_count=self._options.credit + self._room, apply_global=is_global)  # type: ignore[union-attr]

    def unread(self, deliveries: Sequence[KombuDelivery]) -> None:
        with self._lock:
            self._unread += deliveries

    # -- the contents of a delivery

    def queue_of(self, delivery: KombuDelivery) -> str:
        return str((delivery.message.delivery_info or {}).get("routing_key"))

    def plain(self, delivery: KombuDelivery) -> Plain | None:
        return None

    def open(self, delivery: KombuDelivery) -> TaskMessage | None:
        if delivery.error is not None:
            raise ValueError(str(delivery.error))
        return delivery.message

    def is_redelivered(self, delivery: KombuDelivery, message: TaskMessage) -> bool:
        return bool(message.headers.get("redelivered") or (delivery.message.delivery_info or {}).get("redelivered"))

    def is_expired(self, delivery: KombuDelivery, message: TaskMessage) -> bool:
        # A redelivered message was read in time, and its worker was lost with it.
        return is_expired(message.headers, self._layer.expiry_clock) and not self.is_redelivered(delivery, message)

    # -- while it is held

    def is_lost(self, delivery: KombuDelivery) -> bool:
        return delivery.number != self.connections

    def is_deadly(self, delivery: KombuDelivery, message_id: str) -> bool:
        marks = leave_mark(self._layer, message_id)
        delivery.marks = marks or ()
        return marks is None

    # -- outcomes

    def outbox(self, delivery: KombuDelivery) -> None:
        return None

    def settle(self, delivery: KombuDelivery, outbox: object = None) -> None:
        delivery.is_done = True
        self._conclude(delivery, delivery.acknowledge)

    def drop(self, delivery: KombuDelivery) -> None:
        self.settle(delivery)

    def set_aside(self, delivery: KombuDelivery, reason: str) -> None:
        """Reject a message: RabbitMQ moves it to dead letters if an operator has configured a queue for them."""
        delivery.is_done = True
        self._conclude(delivery, lambda: delivery.message.reject())

    def give_back(self, delivery: KombuDelivery) -> None:
        self._conclude(delivery, lambda: delivery.message.requeue())

    def abandon(self, delivery: KombuDelivery) -> None:
        if self._held.get(delivery.key) is delivery:
            del self._held[delivery.key]

    def leave(self, delivery: KombuDelivery) -> None:
        with self._lock:
            delivery.message.requeue()
            self.abandon(delivery)

    def acknowledge_first(self, delivery: KombuDelivery) -> bool:
        """See the contract; from any thread except the polling one."""
        known = threading.Event()

        def conclude() -> None:
            delivery.acknowledge()
            if self._layer.is_amqp:
                self._set_prefetch()  # the answer comes after the broker has read the acknowledgement
            known.set()

        self._settled.append((delivery, conclude))
        while not (known.is_set() or self.is_lost(delivery)):
            self.flush()
            known.wait(BUSY)
        self.abandon(delivery)
        return known.is_set()

    def _conclude(self, delivery: KombuDelivery, conclude: Callable[[], None]) -> None:
        """Queue the conclusion of a message for the broker."""
        self._settled.append((delivery, conclude))
        self._held.pop(delivery.key, None)
        if delivery.marks:
            marks, delivery.marks = delivery.marks, ()
            forget_marks(self._layer, marks)

    def _flush(self) -> None:
        """Send outcomes to the broker; raise the transport's errors."""
        while self._settled:
            delivery, conclude = self._settled[0]
            if not self.is_lost(delivery):
                conclude()
            elif delivery.is_done:
                self._done[delivery.key] = None
                if len(self._done) > MOST_REMEMBERED:
                    del self._done[next(iter(self._done))]
            self._settled.popleft()

    def flush(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # the polling thread will do it in a moment
        try:
            self._flush()
        except self.errors as error:
            logger.warning("acknowledgements are lost, the broker is away: %s", error, extra={"action": "acks_lost"})
            self.lost()
        except Exception:  # the thread must survive
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})
        finally:
            self._lock.release()


def _key_of(message: KombuMessage) -> Key:
    """Return a key that identifies a message, also when it is redelivered."""
    headers = message.headers
    return headers.get("id"), headers.get("retries") or 0
