"""The source of a layer on RabbitMQ.

The messages of consumers are published and confirmed; then the consumers' own messages are acknowledged, both in
batches.  Only the polling thread reads; any thread may write.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.exceptions import OperationalError

from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.amqp_connection import AmqpConnection, ChannelClosed, check_closed
from channelsq.layers.amqp.amqp_delivery import AmqpDelivery, Assembler, Key, kombu_message
from channelsq.layers.amqp.amqp_frames import Frame
from channelsq.layers.amqp.amqp_sender import AmqpOutbox, AmqpSender
from channelsq.layers.amqp.confirmed_sends import ConfirmedSends
from channelsq.layers.amqp.held_too_long import HoldLimit
from channelsq.layers.amqp.open_tags import OpenTags
from channelsq.layers.amqp.prefetch import Prefetch
from channelsq.layers.contract.death_marks import forget_marks, leave_mark
from channelsq.layers.contract.outbox import Outbox
from channelsq.layers.contract.source_contract import Plain, Source, SourceOptions, TaskMessage
from channelsq.layers.kombu_broker.amqp_heartbeats import Pulse
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.wire.wire_forms import open_plain_task

logger = logging.getLogger("channelsq.worker")

#: The AMQP channel.
_CHANNEL = 1

#: Seconds of one wait for a message.
QUIET = 0.25

#: Seconds that a source which closes waits for the confirmations of its consumers' messages.
_CLOSING = 5.0

#: The most settled messages that are remembered.
MOST_REMEMBERED = 10_000


class AmqpSource(Source[AmqpDelivery]):
    """Reads the queues of a layer on RabbitMQ.

    Args:
        layer: the layer.
        sender: the layer's sender, which publishes the messages of consumers.
        options: see :class:`SourceOptions`.
    """

    def __init__(self, layer: KombuBroker, sender: AmqpSender, options: SourceOptions) -> None:
        self._layer = layer
        self._sender = sender
        self._sends = ConfirmedSends(sender, self)
        self._options = options
        self._tags = {channel: f"channelsq-{number}" for number, channel in enumerate(options.channels)}
        self._numbers = len(self._tags)
        self._prefetch = Prefetch(_CHANNEL, options.credit, is_shared=layer.shares_prefetch)
        self._lock = threading.RLock()
        self._acknowledging = threading.Condition(self._lock)
        self._reading = threading.Lock()
        self._connection: AmqpConnection | None = None
        #: The number of the connection, the first being 1.
        self.connections = 0
        self._assembler = Assembler()
        self._arrived: list[AmqpDelivery] = []
        self._unread: list[AmqpDelivery] = []
        #: The messages that are held and not done.
        self._held: dict[Key, AmqpDelivery] = {}
        #: The messages that are done while RabbitMQ does not know it.
        self._done: dict[Key, AmqpDelivery] = {}
        #: The messages acknowledged last; an acknowledgement may be lost.
        self._acknowledged: dict[Key, None] = {}
        #: The messages that are done, with sends or acknowledgements waiting.
        self._settled: list[AmqpDelivery] = []
        self._open_tags = OpenTags(_CHANNEL)
        self._limit = HoldLimit(sender, self)
        self._pulse: Pulse | None = None
        self.ends = False

    # -- the connection

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The exceptions for a lost connection, and for requests that RabbitMQ refuses."""
        return OSError, AMQPError, OperationalError, ChannelClosed

    def connect(self) -> bool:
        if self._connection is not None:
            return False
        connection = AmqpConnection(self._layer)
        try:
            connection.open_channel(_CHANNEL)
            for channel in tuple(self._tags):
                place = self._sender.place_of(channel)
                connection.call(
                    amqp_frames.declare(_CHANNEL, place.queue, place.arguments), amqp_frames.QUEUE_DECLARE_OK
                )
        except BaseException:
            connection.collect()
            raise
        with self._lock:
            self._prefetch.begin()
            self._assembler = Assembler()
            self._open_tags.clear()
            self.connections += 1
            self._connection = connection
            self._say_prefetch()
            self._write(b"".join(self._consume(channel) for channel in self._tags))
        if self._pulse is None and connection.heartbeat:
            self._pulse = Pulse(self._kombu, connection.heartbeat)
            self._pulse.start()
        return True

    def _kombu(self) -> Connection | None:
        connection = self._connection
        return None if connection is None else connection.kombu

    def _consume(self, channel: str) -> bytes:
        queue = self._sender.place_of(channel).queue
        return amqp_frames.consume(_CHANNEL, queue, self._tags[channel], no_wait=True)

    def lost(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self.connections += 1  # RabbitMQ has the messages of the lost connection again
            for delivery in (*self._arrived, *self._unread):
                self.abandon(delivery)
            self._arrived.clear()
            self._unread.clear()
            self._open_tags.clear()
            self._acknowledging.notify_all()
        if connection is not None:
            connection.collect()

    def interrupt(self) -> None:
        self.ends = True

    def cut(self) -> None:
        self.close()

    def close(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        self.flush()
        with self._acknowledging:  # until all sends are confirmed and their messages acknowledged
            self._acknowledging.wait_for(lambda: self._connection is None or not self._done, _CLOSING)
        with self._reading:
            connection, self._connection = self._connection, None
            self.connections += 1  # RabbitMQ has the held messages again
            if connection is not None:
                connection.close()

    def _write(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None and data:
            connection.write(data)

    # -- reading

    def read(self, channel: str) -> None:
        if channel not in self._tags:
            self._numbers += 1
            self._tags[channel] = f"channelsq-{self._numbers}"
            place = self._sender.place_of(channel)
            declare = amqp_frames.declare(_CHANNEL, place.queue, place.arguments)
            self._write(declare + self._consume(channel))

    def cease(self, channel: str) -> None:
        tag = self._tags.pop(channel, None)
        if tag is not None:
            self._write(amqp_frames.cancel(_CHANNEL, tag))

    def poll(self, seconds: float) -> Sequence[AmqpDelivery]:
        until = time.monotonic() + seconds
        self._flush()
        while True:
            with self._reading:
                self._take_in(min(max(0.0, until - time.monotonic()), QUIET))
            found = self._hold_arrived()
            if self._limit.is_time():
                self._limit.look([*self._held.values()])
            if found or time.monotonic() >= until or self.ends:
                return found

    def _take_in(self, seconds: float) -> None:
        """Read frames for ``seconds``; the caller holds :attr:`_reading`."""
        connection = self._connection
        if connection is None:
            return
        for frame in connection.read(0.0 if self._arrived or self._unread else seconds):
            if frame.type == amqp_frames.METHOD and frame.method != amqp_frames.BASIC_DELIVER:
                self._on_method(frame)
                continue
            delivery = self._assembler.add(frame)
            if delivery is not None:
                delivery.number = self.connections
                with self._lock:  # other threads go through the tags while they acknowledge
                    self._arrived.append(delivery)
                    self._open_tags.add(delivery.tag)

    def _on_method(self, frame: Frame) -> None:
        check_closed(frame)
        if frame.method == amqp_frames.BASIC_QOS_OK:
            self._prefetch.answered += 1
        elif frame.method == amqp_frames.BASIC_CANCEL:
            raise ChannelClosed(404, "RabbitMQ has deleted a queue that is read")

    def _hold_arrived(self) -> list[AmqpDelivery]:
        with self._lock:
            found, self._unread = self._unread, []
            arrived, self._arrived = self._arrived, []
            if not arrived:
                return found
            now = time.monotonic()
            for delivery in arrived:
                if not self._knows(delivery):
                    delivery.since = now
                    self._held[delivery.key] = delivery
                    found.append(delivery)
        self._flush()
        return found

    def _knows(self, delivery: AmqpDelivery) -> bool:
        """Return whether a redelivered message is not new, because this source holds or had it."""
        key = delivery.key
        held = self._held.get(key) or self._done.get(key)
        if held is None:
            if key not in self._acknowledged:
                return False
            delivery.is_settled = delivery.is_sent = True
            self._done[key] = delivery
            self._settled.append(delivery)
            return True
        if not self.is_lost(held):  # a duplicate of the publisher
            self._write(amqp_frames.acknowledge(_CHANNEL, held.tag))
            self._open_tags.discard(held.tag)
        held.tag, held.number, held.since = delivery.tag, delivery.number, time.monotonic()
        held.is_acknowledged = False
        if held.is_settled and held not in self._settled:
            self._settled.append(held)
        return True

    def has_credit(self) -> bool:
        return self._connection is None or self._prefetch.has_credit(len(self._held))

    def make_room(self, number: int) -> None:
        with self._lock:
            self._prefetch.room += number
            self._say_prefetch()

    def _say_prefetch(self) -> None:
        frames, is_for_later = self._prefetch.grant()
        self._write(frames)
        for channel, tag in self._tags.items() if is_for_later else ():
            self._write(amqp_frames.cancel(_CHANNEL, tag) + self._consume(channel))

    def unread(self, deliveries: Sequence[AmqpDelivery]) -> None:
        with self._lock:
            self._unread += deliveries

    # -- the contents of a delivery

    def queue_of(self, delivery: AmqpDelivery) -> str:
        return delivery.queue

    def plain(self, delivery: AmqpDelivery) -> Plain | None:
        identity = delivery.identity
        if identity is None or delivery.redelivered:
            return None
        signing = self._layer.signing
        if signing is not None and not signing.is_signed(delivery.queue, identity, delivery.body):
            return None
        found = open_plain_task(delivery.body)
        if found is None or self._layer.queue_prefix + found[0] != delivery.queue:
            return None
        content = self._layer.protection.encryption.content_of(delivery.queue, found[1])
        return None if content is None else (found[0], identity, content)

    def open(self, delivery: AmqpDelivery) -> TaskMessage | None:
        return kombu_message(delivery, self._options.accept)

    def is_redelivered(self, delivery: AmqpDelivery, message: TaskMessage) -> bool:
        return delivery.redelivered or bool(message.headers.get("redelivered"))

    def is_expired(self, delivery: AmqpDelivery, message: TaskMessage) -> bool:
        return False  # RabbitMQ drops expired messages

    # -- while it is held

    def is_lost(self, delivery: AmqpDelivery) -> bool:
        return delivery.number != self.connections

    def is_deadly(self, delivery: AmqpDelivery, message_id: str) -> bool:
        marks = leave_mark(self._layer, message_id)
        delivery.marks = marks or ()
        return marks is None

    # -- outcomes

    def outbox(self, delivery: AmqpDelivery) -> Outbox | None:
        # Messages that RabbitMQ itself may refuse are sent while the error can still be raised in the consumer.
        return None if self._layer.exact_capacity else AmqpOutbox(self._layer)

    def settle(self, delivery: AmqpDelivery, outbox: Outbox | None) -> None:
        if isinstance(outbox, AmqpOutbox) and outbox:
            delivery.outbox = outbox
        else:
            delivery.is_sent = True
        with self._lock:
            delivery.is_settled = True
            self._held.pop(delivery.key, None)
            self._done[delivery.key] = delivery
            self._settled.append(delivery)
            while len(self._done) > MOST_REMEMBERED:
                del self._done[next(iter(self._done))]
        self._forget_marks(delivery)

    def drop(self, delivery: AmqpDelivery) -> None:
        self.settle(delivery, None)

    def set_aside(self, delivery: AmqpDelivery, reason: str) -> None:
        """Reject a message: RabbitMQ moves it to dead letters if an operator has configured a queue for them."""
        self._refuse(delivery, requeue=False)

    def give_back(self, delivery: AmqpDelivery) -> None:
        try:
            self._refuse(delivery, requeue=True)
        except self.errors as error:  # then RabbitMQ has it again
            logger.debug("%s was not given back: %s", delivery.key, error, extra={"action": "give_back_failed"})

    def leave(self, delivery: AmqpDelivery) -> None:
        self._refuse(delivery, requeue=True)

    def _refuse(self, delivery: AmqpDelivery, *, requeue: bool) -> None:
        with self._lock:
            self.abandon(delivery)
            if not self.is_lost(delivery) and not delivery.is_acknowledged:
                self._open_tags.discard(delivery.tag)
                self._write(amqp_frames.reject(_CHANNEL, delivery.tag, requeue=requeue))
        self._forget_marks(delivery)

    def abandon(self, delivery: AmqpDelivery) -> None:
        with self._lock:
            if self._held.get(delivery.key) is delivery:
                del self._held[delivery.key]

    def detach(self, delivery: AmqpDelivery) -> Callable[[bool], None]:
        """See :class:`channelsq.layers.amqp.held_too_long.Holder`."""
        with self._lock:
            self.abandon(delivery)
            tag, number, delivery.number = delivery.tag, delivery.number, -1

        def conclude(is_taken: bool) -> None:
            frame = amqp_frames.acknowledge(_CHANNEL, tag)
            if not is_taken:
                frame = amqp_frames.reject(_CHANNEL, tag, requeue=True)
            with self._lock:
                if number != self.connections:
                    return
                self._open_tags.discard(tag)
                try:
                    self._write(frame)
                except self.errors as error:  # then RabbitMQ has it again
                    logger.debug("%s: %s", delivery.queue, error, extra={"action": "acks_lost"})

        return conclude

    def _forget_marks(self, delivery: AmqpDelivery) -> None:
        if delivery.marks:
            marks, delivery.marks = delivery.marks, ()
            forget_marks(self._layer, marks)

    def acknowledge_first(self, delivery: AmqpDelivery) -> bool:
        try:
            with self._lock:
                if self.is_lost(delivery):
                    self.abandon(delivery)
                    return False
                self.acknowledge([delivery])
                frames, asked = self._prefetch.repeat()
                self._write(frames)
            # RabbitMQ answers after it has read the acknowledgement.
            while self._prefetch.answered < asked and not self.is_lost(delivery):
                if self._reading.acquire(timeout=QUIET):
                    try:
                        if self._prefetch.answered < asked:
                            self._take_in(QUIET)
                    finally:
                        self._reading.release()
        except self.errors:
            self.lost()
        self.abandon(delivery)
        return not self.is_lost(delivery)

    # -- sending what is settled

    def flush(self) -> None:
        try:
            self._flush()
        except self.errors as error:
            logger.warning("acknowledgements are lost, the broker is away: %s", error, extra={"action": "acks_lost"})
            self.lost()
        except Exception:  # the thread must survive
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})

    def _flush(self) -> None:
        if not self._settled:
            return
        with self._lock:
            settled, self._settled = self._settled, []
            sent = [delivery for delivery in settled if delivery.is_sent]
            # A lost message waits until it is redelivered: another worker may have it, and send.
            to_send = [
                delivery
                for delivery in settled
                if not (delivery.is_sent or delivery.is_sending or self.is_lost(delivery))
            ]
            for delivery in to_send:
                delivery.is_sending = True
        self.acknowledge(sent)
        if to_send:
            self._sends.publish(to_send)

    def acknowledge(self, deliveries: Sequence[AmqpDelivery]) -> None:
        """Acknowledge messages; use one frame for the oldest unacknowledged ones.  From any thread."""
        with self._lock:
            tags: set[int] = set()
            for delivery in deliveries:
                if self.is_lost(delivery):
                    continue  # it is redelivered
                if not delivery.is_acknowledged:
                    delivery.is_acknowledged = True
                    tags.add(delivery.tag)
                if delivery.is_settled and self._done.get(delivery.key) is delivery:
                    del self._done[delivery.key]
                self._acknowledged[delivery.key] = None
            if not self._done:
                self._acknowledging.notify_all()
            while len(self._acknowledged) > MOST_REMEMBERED:
                del self._acknowledged[next(iter(self._acknowledged))]
            if tags:
                self._write(self._open_tags.acknowledge(tags))
