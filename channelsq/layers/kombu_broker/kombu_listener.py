"""A process's listener on a Kombu broker: the thread that consumes its reply queue."""

from __future__ import annotations

import functools
import logging
import threading
import time
from contextlib import suppress
from typing import Any

from kombu import Connection, Consumer, Queue

from channelsq.core.wire_version import NewerWire, check_headers, teller
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.contract.layer_values import Deliver
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused
from channelsq.layers.wire.wire_forms import is_expired, open_body, open_envelope

logger = logging.getLogger("channelsq.layers.kombu_broker.kombu_listener")

#: Seconds between two checks of heartbeats.
_LOOK_EVERY = 0.5

#: Seconds between two acknowledgements, each of all earlier deliveries.
_ACKNOWLEDGE_EVERY = 0.1

#: The most envelopes that are recognised again: more than can arrive between two heartbeats.
_MOST_SEEN = 50_000


def log_foreign(queue: Queue, error: Exception) -> None:
    """Log that a message on ``queue`` is not channelsq's and is dropped."""
    logger.error(
        "queue %s: a message that is not channelsq's was dropped: %s",
        queue.name,
        error,
        extra={"action": "foreign_message_dropped"},
    )


class KombuListener:
    """A thread that consumes one process's reply queue, and reconnects when the broker is lost.

    On AMQP it acknowledges envelopes, so that those sent into a half-open connection are redelivered; and it consumes
    exclusively, so that no later envelope overtakes them.  Other brokers do not support this.
    """

    def __init__(self, layer: KombuBroker, queue: Queue, deliver: Deliver) -> None:
        self._layer = layer
        self._queue = queue
        self._deliver = deliver
        self._stopping = threading.Event()
        #: Whether it is connected to the broker, as far as is known.
        self.connected = False
        self._acknowledges = layer.is_amqp
        self._clock = layer.expiry_clock
        #: The last envelope that was delivered and not acknowledged; None if all are acknowledged.
        self._unacknowledged: Any = None
        #: The ids of the last envelopes.
        self._seen: dict[str, None] = {}
        self._thread = threading.Thread(target=self._run, name=f"channelsq-listen-{self._queue.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        wait, lost = 0.1, False
        while not self._stopping.is_set():
            try:
                with self._layer.broker_errors(), self._layer.open_connection(listens=True) as connection:
                    self._listen(connection, again=lost)
            except BrokerUnavailable as error:
                if self.connected:
                    wait, lost = 0.1, False
                self.connected = False
                if not lost:
                    logger.error(
                        "queue %s: %s; trying again until it is back",
                        self._queue.name,
                        error,
                        extra={"action": "broker_lost"},
                    )
                lost = True
                self._stopping.wait(wait)
                wait = min(wait * 2, 2.0)

    def _listen(self, connection: Connection, *, again: bool) -> None:
        consumer = self._consumer(connection)
        consumer.consume()
        if again:
            logger.info("queue %s: listening again", self._queue.name, extra={"action": "broker_back"})
        self.connected = True
        try:
            self._drain(connection)
        except Exception:
            # A half-open connection would not answer a close.  The consumer is left as it is: with Kombu 5.5 its end
            # raises AttributeError afterwards.
            connection.collect()
            raise
        with suppress(Exception):  # the connection is closed next
            consumer.cancel()

    def _consumer(self, connection: Connection) -> Consumer:
        channel: Any = connection.channel()
        self._unacknowledged = None
        if self._acknowledges:
            channel.basic_consume = functools.partial(channel.basic_consume, exclusive=True)
        return Consumer(
            channel,
            [self._queue],
            no_ack=not self._acknowledges,
            on_message=self._on_message,
            on_decode_error=self._on_bad_message,
        )

    def _drain(self, connection: Connection) -> None:
        beats, looked, acknowledged = bool(connection.heartbeat), 0.0, 0.0
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.5 if self._unacknowledged is None else _ACKNOWLEDGE_EVERY)
            now = time.monotonic()
            if self._unacknowledged is not None and now - acknowledged >= _ACKNOWLEDGE_EVERY:
                acknowledged = now
                self._acknowledge()
            if beats and now - looked >= _LOOK_EVERY:
                looked = now
                connection.heartbeat_check()
        self._acknowledge()

    def _acknowledge(self) -> None:
        last, self._unacknowledged = self._unacknowledged, None
        if last is not None:
            last.ack(multiple=True)

    def _on_bad_message(self, message: Any, error: Exception) -> None:
        self._note(message)
        log_foreign(self._queue, error)
        if self._layer.foreign_listener is not None:
            self._layer.foreign_listener()

    def _note(self, message: Any) -> bool:
        """Have an envelope acknowledged soon; return whether it is new."""
        if not self._acknowledges:
            return True
        self._unacknowledged = message
        identity = message.properties.get("message_id")
        if identity is None:  # from an older worker without ids
            return True
        if identity in self._seen:
            return False
        self._seen[identity] = None
        if len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    def _on_newer(self, message: Any, error: NewerWire) -> None:
        """Reject an envelope that only a newer process can read; RabbitMQ may have dead letters for it."""
        if self._acknowledges:
            message.reject()
        teller.tell(self._queue.name, error, "for clients of this process was rejected, as no other process reads it")
        if self._layer.foreign_listener is not None:
            self._layer.foreign_listener()

    def _on_message(self, message: Any) -> None:
        try:
            check_headers(message.headers)
        except NewerWire as error:
            self._on_newer(message, error)
            return
        if not self._note(message) or is_expired(message.headers, self._clock):
            return
        try:
            for entry in open_envelope(open_body(message, self._queue.name, self._layer.protection)):
                self._deliver(list(entry.channels), codec.unpack(entry.packed), entry.group)
        except Refused:
            return
        except ValueError as error:
            self._on_bad_message(message, error)
