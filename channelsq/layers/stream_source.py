"""The source of a layer on Redis Streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from time import monotonic
from typing import Any, TypeAlias, cast

from kombu import Connection, Consumer
from kombu.exceptions import OperationalError
from kombu.transport.virtual import Message as KombuMessage

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.source_contract import Plain, SourceOptions, TaskMessage, WaitableSource
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.stream_sender import StreamOutbox
from channelsq.layers.wire import codec
from channelsq.layers.wire.encryption import KEY
from channelsq.redis_core.commands import Command
from channelsq.redis_core.compact import ForeignPayload, decode_compact
from channelsq.redis_core.entries import Entry
from channelsq.transport import dead_letters, payloads
from channelsq.transport.streams_channel import Channel

logger = logging.getLogger("channelsq.worker")

#: Returns the commands that send outboxes.
Render: TypeAlias = Callable[[Sequence[StreamOutbox]], list[Command]]

#: Seconds between two checks for an answer to acknowledgements that no later send has read.
LOOK_EVERY = 0.5

#: The first byte of a message in the transport's compact form: a msgpack list of four.
_COMPACT = 0x94

_NONE_ALIVE = "", -1


class StreamSource(WaitableSource[Entry]):
    """Reads the streams of a layer; its deliveries are the entries.

    Args:
        layer: the layer.
        render: returns the commands that send outboxes.
        options: see :class:`SourceOptions`.
    """

    # State of the last poll:
    _now = 0
    _alive: tuple[str, int] = _NONE_ALIVE

    def __init__(self, layer: KombuBroker, render: Render, options: SourceOptions) -> None:
        self._layer = layer
        self._render = render
        self._options = options
        self._signing = layer.signing
        self._encryption = layer.protection.encryption
        self._wanted = dict.fromkeys(options.channels)
        #: The channel of each queue that is, or was, read.
        self._channels = {layer.queue(channel).name: channel for channel in options.channels}
        self._reluctance = options.reluctance
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._consumer: Consumer | None = None
        self._was_replaced = False  # whether the current broker channel has replaced another
        self._looked = 0.0
        self._ends = False

    # -- the connection

    @cached_property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The exceptions of the transport."""
        connection = self._layer.open_connection()
        return (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)

    def connect(self) -> bool:
        channel = self._channel
        if channel is None or channel.closed:
            self._open_channel()
            return True
        channel.give_back_waiting()  # independent of credit, which this frees
        return False

    def _open_channel(self) -> None:
        connection = self._layer.open_connection()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            channel = cast(Channel, connection.default_channel)
            channel.render = self._render
            channel.basic_qos(0, self._options.credit, False)
            queues = [self._layer.queue(name) for name in self._wanted]
            consumer = Consumer(channel, queues=queues, on_message=_refuse)
            self._options.opened(channel.streams.consumer)
            consumer.consume()
            if self._reluctance:
                channel.put_off_take_over(self._reluctance)
                self._reluctance = 0.0
        except BaseException:
            connection.close()
            raise
        self._was_replaced = self._channel is not None
        self._connection, self._channel, self._consumer = connection, channel, consumer

    def lost(self) -> None:
        """Do nothing: the channel notices, and connects again."""

    def interrupt(self) -> None:
        self._ends = True
        channel = self._channel
        if channel is not None:
            try:
                channel.interrupt()
            except Exception as error:  # the poll returns by itself, within a second
                logger.debug("a poll could not be interrupted: %s", error, extra={"action": "interrupt_failed"})

    def cut(self) -> None:
        """Send settled outcomes; the worker leaves the messages of the process to others."""
        self.flush()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._channel = None
        if connection is None:
            return
        try:
            connection.close()
        except Exception as error:
            logger.warning("%s: closed badly: %s", shown(self._layer.url), error, extra={"action": "close_failed"})

    # -- reading

    def read(self, channel: str) -> None:
        queue = self._layer.queue(channel)
        self._wanted[channel] = None
        self._channels[queue.name] = channel
        if self._consumer is not None and not self._consumer.consuming_from(queue):
            self._consumer.add_queue(queue)
            self._consumer.consume()

    def cease(self, channel: str) -> None:
        self._wanted.pop(channel, None)
        if self._consumer is not None:
            self._consumer.cancel_by_queue(self._layer.queue(channel).name)

    @property
    def _current(self) -> Channel:
        """The broker channel of the last poll."""
        assert self._channel is not None
        return self._channel

    def poll(self, seconds: float) -> Sequence[Entry]:
        channel = self._current
        return self._received(channel, channel.poll(seconds))

    def begin_poll(self, seconds: float) -> None:
        self._current.start_poll(seconds)

    def wait_handle(self) -> int | None:
        return self._current.answer_socket()

    def end_poll(self) -> Sequence[Entry] | None:
        channel = self._current
        entries = channel.take_answer()
        return None if entries is None else self._received(channel, entries)

    def _received(self, channel: Channel, entries: list[Entry]) -> Sequence[Entry]:
        channel.stream_qos.hold(entries)
        now = monotonic()
        if now - self._looked > LOOK_EVERY:
            self._looked = now
            channel.look_for_answer()
        self._now = channel.server_time()
        self._alive = _NONE_ALIVE
        return entries

    def has_credit(self) -> bool:
        return self._channel is None or bool(self._channel.qos.can_consume())

    def make_room(self, number: int) -> None:
        if self._channel is not None:
            self._channel.qos.prefetch_count += number

    def unread(self, deliveries: Sequence[Entry]) -> None:
        self._current.unread(deliveries)

    # -- the contents of a delivery

    def queue_of(self, delivery: Entry) -> str:
        return self._current.queue_of(delivery.key)

    def plain(self, delivery: Entry) -> Plain | None:
        key, identity, data, redelivered, _ = delivery
        if not data or data[0] != _COMPACT or redelivered:
            return None
        try:
            queue, message_id, body, lifetime = decode_compact(data)
            (sent_to, content), _, _ = codec.loads(body)
        except (ForeignPayload, TypeError, ValueError):
            return None
        channel = self._channels.get(queue)  # type: ignore[arg-type]  # None for other queues, too
        if channel is None or sent_to != channel or queue != self._channel.queue_of(key):  # type: ignore[union-attr]
            return None
        if message_id is None or type(content) is not dict:
            return None
        if self._signing is not None and not self._signing.is_signed(str(queue), message_id, body):
            return None
        if self._encryption.encrypts or KEY in content:
            content = self._encryption.content_of(str(queue), content)
            if content is None:
                return None
        if lifetime is not None:
            # An entry that had not expired, and its lifetime: a younger one with the same lifetime has not expired,
            # either.
            oldest, same = self._alive
            if lifetime != same or identity < oldest:
                if int(identity.partition("-")[0]) + lifetime <= self._now:
                    return None
                self._alive = identity, lifetime
        return channel, message_id, content

    def open(self, delivery: Entry) -> TaskMessage | None:
        channel = self._current
        payload = channel.unpack(delivery)
        if payload is None:
            channel.stream_qos.release(delivery.tag)
            return None
        return cast(TaskMessage, KombuMessage(payload, channel=channel, accept=self._options.accept))

    def is_redelivered(self, delivery: Entry, message: TaskMessage) -> bool:
        return delivery.redelivered or bool(message.headers.get("redelivered"))  # of a copy that was given back

    def is_expired(self, delivery: Entry, message: Any) -> bool:
        end = payloads.expires({"headers": message.headers, "properties": message.properties}, delivery.id)
        # A message that was given to a worker in time does not expire if that worker dies.
        return end is not None and end <= self._now and not delivery.redelivered

    def age(self, delivery: Entry) -> float:
        return (self._now - int(delivery.id.partition("-")[0])) / 1000

    # -- while it is held

    def is_lost(self, delivery: Entry) -> bool:
        channel = self._channel
        if channel is None or channel.closed:
            return True
        return self._was_replaced and not channel.stream_qos.holds(delivery.tag)

    # -- outcomes

    def outbox(self, delivery: Entry) -> StreamOutbox:
        return StreamOutbox(self._layer)

    def settle(self, delivery: Entry, outbox: Any) -> None:
        channel = self._channel
        if channel is not None:
            key, identity = delivery[0], delivery[1]
            if outbox is not None and not (outbox.envelopes or outbox.commands):
                outbox = None
            channel.stream_qos.settle(key, identity, f"{identity} {key}", outbox)

    def drop(self, delivery: Entry) -> None:
        self.settle(delivery, None)

    def acknowledge_first(self, delivery: Entry) -> bool:
        channel = self._channel
        if channel is None:
            return False
        try:
            is_mine = channel.acknowledge_now(delivery.tag)
        except channel.connection_errors as error:
            # Redis knows whether it is acknowledged; if so, this does nothing.
            logger.warning("%s was not begun: %s", delivery.tag, error, extra={"action": "not_begun"})
            self.give_back(delivery)
            return False
        self.settle(delivery, None)
        return is_mine

    def give_back(self, delivery: Entry) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            channel.qos.reject(delivery.tag, requeue=True)
        except channel.connection_errors as error:
            logger.warning("%s is given back later: %s", delivery.tag, error, extra={"action": "give_back_waits"})
            channel.give_back_later(delivery.tag)

    def abandon(self, delivery: Entry) -> None:
        """Do nothing: a closed channel holds nothing."""

    def leave(self, delivery: Entry) -> None:
        self._current.give_back_fetched([delivery])
        self._current.stream_qos.release(delivery.tag)

    def set_aside(self, delivery: Entry, reason: str) -> None:
        dead_letters.set_aside(self._current, delivery, reason)
        self._current.stream_qos.release(delivery.tag)

    def flush(self) -> None:
        channel = self._channel
        if channel is not None:
            # At the end no further poll will read the answer.
            self._send(channel, lambda: channel.flush_acks(wait=self._ends))

    def flush_soon(self) -> bool:
        channel = self._channel
        return channel is None or self._send(channel, channel.flush_acks_soon) is not False

    def _send(self, channel: Channel, send: Callable[[], bool | None]) -> bool | None:
        try:
            return send()
        except channel.connection_errors as error:
            logger.warning("acknowledgements wait, Redis is away: %s", error, extra={"action": "acks_wait"})
        except Exception:  # they wait, too, and the thread must survive
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})
        return False


def _refuse(message: Any) -> None:
    """Raise NotImplementedError; never called, because the source polls the channel itself."""
    raise NotImplementedError
