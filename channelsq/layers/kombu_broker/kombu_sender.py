"""Sending on any broker that Kombu supports: a pool of producers, and the declaration and capacity of queues."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from kombu import Producer, Queue
from kombu.pools import ProducerPool

from channelsq.core import names
from channelsq.core.names import new_id
from channelsq.exceptions import ChannelFull
from channelsq.layers.contract.layer_values import ChannelState, Send
from channelsq.layers.kombu_broker.amqp_internals import Blocked, was_unblocked
from channelsq.layers.kombu_broker.broker_access import QUEUE_EXPIRES, KombuBroker, channel_of, is_temporary
from channelsq.layers.kombu_broker.kombu_gate import Gate
from channelsq.layers.wire.wire_forms import CONTENT_TYPE, Entry, expiry_headers, pack_envelopes, task_message
from channelsq.redis_core.channel_state import look
from channelsq.redis_core.entries import DEAD_PREFIX

_Result = TypeVar("_Result")

#: A lost connection is opened again; a broker that is away is reported soon.
_RETRIES: dict[str, Any] = {"max_retries": 2, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.3}


class KombuSender:
    """The sender of a layer.

    Args:
        layer: the layer.
        connections: the most connections that may be in use at once; further threads wait.
    """

    def __init__(self, layer: KombuBroker, connections: int) -> None:
        self._layer = layer
        self._connections = connections
        self._lock = threading.RLock()
        self._pid = 0
        self._producers: ProducerPool | None = None
        self._gate: Gate | None = None
        #: When a queue that expires was last declared, by name.
        self._declared: dict[str, float] = {}

    # -- connections

    @contextmanager
    def producer(self) -> Iterator[Producer]:
        """Yield a producer of the pool; raise BrokerUnavailable for the transport's errors in the block."""
        with self._lock:
            if self._pid != os.getpid() or self._producers is None:
                # After a fork the parent's sockets must be neither used nor closed.
                self._pid = os.getpid()
                self.forget()
                connections = self._layer.open_connection().Pool(self._connections)
                self._producers = ProducerPool(connections, limit=self._connections)
            pool = self._producers
        with self._layer.broker_errors():
            producer = pool.acquire(block=True, timeout=30)
            connection: Any = producer.connection
            try:
                if self._layer.is_amqp:
                    _look_whether_blocked(connection)
                yield producer
            except (Blocked, ChannelFull):
                raise
            except BaseException:
                # The late answer to an abandoned request could be taken for that of the next request.
                connection.collect()
                raise
            finally:
                producer.release()

    def forget(self) -> None:
        """Invalidate all that was known of queues, because the connection is a new one."""
        with self._lock:
            self._gate = None
            self._declared.clear()

    def forget_depths(self) -> None:
        """Invalidate all measured depths."""
        with self._lock:
            self._gate = None

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            producers, self._producers = self._producers, None
        if producers is not None and self._pid == os.getpid():
            producers.connections.force_close_all()

    # -- sending

    def dispatch(self, envelopes: Mapping[str, list[Entry]], messages: Sequence[tuple[str, Send]]) -> None:
        """Send the result of :meth:`KombuBroker.sort`; see :meth:`BaseChannelLayer.dispatch`."""
        full: ChannelFull | None = None
        with self.producer() as producer:
            for prefix, entries in envelopes.items():
                full = self._publish_envelopes(producer, prefix, entries) or full
            for channel, send in messages:
                try:
                    self._publish_message(producer, channel, send)
                except ChannelFull as error:
                    if send.group:
                        self._layer.note_dropped(send.target, channel)
                    else:
                        full = full or error
        if full is not None:
            raise self._layer.tally.count_full(full)

    def _publish_envelopes(self, producer: Producer, prefix: str, entries: list[Entry]) -> ChannelFull | None:
        """Publish entries for one process; return ChannelFull if more than messages to groups was refused."""
        queue = self._layer.reply_queue(prefix[:-1])
        refused: ChannelFull | None = None
        for part, body in pack_envelopes(entries):
            try:
                self._admit(producer, queue, self._layer.reply_capacity(prefix), prefix)
            except ChannelFull as error:
                refused = self._layer.refuse_envelope(part, error.capacity) or refused
                continue
            self._publish_bare(producer, queue, body)
        return refused

    def _publish_message(self, producer: Producer, channel: str, send: Send) -> None:
        queue = self._layer.queue(channel)
        self._admit(producer, queue, self._layer.capacity_of(channel), channel)
        if names.is_single_reader(channel):
            self._publish_bare(producer, queue, send.body)
        else:
            headers, body = task_message(
                channel,
                queue.name,
                send.body,
                delay=send.delay,
                expiry=self._layer.expiry,
                expires=self._layer.expires(send.delay),
                identity=send.identity,
                protection=self._layer.protection,
            )
            self._publish(producer, queue, body, headers=headers, correlation_id=headers["id"], delay=send.delay)
            self._layer.tally.count_sent(channel)

    def _publish_bare(self, producer: Producer, queue: Queue, body: bytes) -> None:
        if self._layer.protection.is_on:
            body = self._layer.protection.bare(queue.name, body, self._layer.expiry * 1000)
        self._publish(
            producer,
            queue,
            body,
            headers=expiry_headers(self._layer.expires()),
            delivery_mode=1,
            message_id=new_id(),  # identifies duplicates
        )

    def _publish(self, producer: Producer, queue: Queue, body: bytes, *, delay: float = 0.0, **properties: Any) -> None:
        producer.publish(
            body,
            exchange="",
            routing_key=queue.name,
            content_type=CONTENT_TYPE,
            content_encoding="binary",
            expiration=self._layer.expiry + delay,
            declare=[queue] if self._needs_declaring(producer, queue) else [],
            retry=True,
            retry_policy=_RETRIES,
            **properties,
        )

    def _needs_declaring(self, producer: Producer, queue: Queue) -> bool:
        """Return whether to declare ``queue`` with this publish.

        Kombu itself remembers durable queues.  It declares expiring ones every time.  A virtual transport needs this,
        because it renews the expiry.  On an AMQP broker it costs a round trip, so once in a while is enough there.
        """
        self._layer.use(queue)
        if not is_temporary(queue) or not self._layer.is_amqp:
            return True
        now = time.monotonic()
        if now - self._declared.get(queue.name, -1e9) < QUEUE_EXPIRES / 4:
            return False
        if len(self._declared) > 10_000:
            self._declared.clear()
        self._declared[queue.name] = now
        return True

    def depth(self, queue: Queue) -> int:
        """Return how many messages wait in a queue."""
        with self.producer() as producer:
            return _again(producer, lambda: self._gate_of_broker().depth(channel_of(producer), queue))

    def state(self, queue: Queue) -> ChannelState:
        """Return the state of a queue that workers consume; see :meth:`BaseChannelLayer.channel_state`."""
        waiting = self.depth(queue)
        gate = self._gate_of_broker()
        with self.producer() as producer:
            channel = channel_of(producer)
            if "-streams" in self._layer.scheme:
                streams, name = channel.streams, queue.name
                return ChannelState(
                    waiting, *channel.carry_out(look(streams.key(name), streams.prefix + DEAD_PREFIX + name))
                )
            expires = gate.expiry_of_oldest(channel, queue)
        clock = self._layer.expiry_clock
        if expires is None or clock is None:
            return ChannelState(waiting)
        return ChannelState(waiting, None, max(0.0, clock.now() + self._layer.expiry - expires))

    def purge(self, queue: Queue) -> int:
        """Delete the waiting messages of a queue; return how many."""
        with self.producer() as producer:
            connection: Any = producer.connection
            try:
                return int(channel_of(producer).queue_purge(queue.name) or 0)
            except connection.channel_errors:  # the queue does not exist, and AMQP closes the channel
                connection.collect()
                return 0

    def check_writable(self, queue: Queue) -> None:
        """Raise BrokerUnavailable if the Redis with a queue refuses commands that need memory, or all writes."""
        with self.producer() as producer:
            # The key does not exist, so this writes nothing; it is refused as a write would be.
            channel_of(producer).client.set(f"{queue.name}.probe", "1", xx=True)

    def _admit(self, producer: Producer, queue: Queue, capacity: int, channel: str) -> None:
        """Raise ChannelFull for ``channel`` if its ``queue`` is full."""
        gate = self._gate_of_broker()
        if not gate.knows_room(queue):
            _again(producer, lambda: gate.admit(channel_of(producer), queue, capacity, channel))

    def _gate_of_broker(self) -> Gate:
        gate = self._gate
        if gate is None:
            layer = self._layer
            # The transport on streams handles expired messages itself.
            lists = layer.scheme in layer.redis_schemes and "-streams" not in layer.scheme
            kind = "redis" if lists else "memory" if layer.in_process else ""
            gate = self._gate = Gate(kind, layer.expiry_clock)
        return gate


def _again(producer: Producer, call: Callable[[], _Result]) -> _Result:
    """Return the result of ``call``, which is repeated on a new connection if this one is lost."""
    connection: Any = producer.connection
    try:
        return call()
    except connection.recoverable_connection_errors:
        connection.collect()
        producer.revive(connection.default_channel)
        return call()


def _look_whether_blocked(connection: Any) -> None:
    """Raise Blocked if RabbitMQ accepts nothing on a connection; close one that was blocked since."""
    if connection.connected and was_unblocked(connection.connection):
        # The confirmation of the last message may still come.
        connection.collect()
