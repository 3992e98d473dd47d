"""A process's ear on a Kombu broker: the thread that consumes its reply queue."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu import Connection, Consumer, Queue

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import codec
from channelsq.layers.base import Deliver
from channelsq.layers.signing import Refused
from channelsq.layers.wire import is_expired, open_body, open_envelope

if TYPE_CHECKING:
    from channelsq.layers.kombu import KombuChannelLayer

logger = logging.getLogger("channelsq.layers.listener")

#: Seconds between two looks at what there is of heartbeats.
_LOOK_EVERY = 0.5


def log_foreign(queue: Queue, error: Exception) -> None:
    """Say that a message on ``queue`` was none of ours and is dropped."""
    logger.error(
        "queue %s: a message that is not channelsq's was dropped: %s",
        queue.name,
        error,
        extra={"action": "foreign_message_dropped"},
    )


class KombuListener:
    """A thread that consumes one process's reply queue, and reconnects when the broker goes away."""

    def __init__(self, layer: KombuChannelLayer, queue: Queue, deliver: Deliver) -> None:
        self._layer = layer
        self._queue = queue
        self._deliver = deliver
        self._stopping = threading.Event()
        #: Whether it hears the broker, as far as is known.
        self.connected = False
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
                    consumer = Consumer(
                        connection.channel(),
                        [self._queue],
                        no_ack=True,
                        on_message=self._on_message,
                        on_decode_error=self._on_bad_message,
                    )
                    with consumer:
                        if lost:
                            logger.info("queue %s: listening again", self._queue.name, extra={"action": "broker_back"})
                        wait, lost = 0.1, False
                        self.connected = True
                        try:
                            self._drain(connection)
                        except Exception:
                            connection.collect()  # a connection that is half open would answer no goodbye
                            raise
            except BrokerUnavailable as error:
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

    def _drain(self, connection: Connection) -> None:
        beats, looked = bool(connection.heartbeat), 0.0
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.5)
            if beats and (now := time.monotonic()) - looked >= _LOOK_EVERY:
                looked = now
                connection.heartbeat_check()

    def _on_bad_message(self, message: Any, error: Exception) -> None:
        log_foreign(self._queue, error)
        if self._layer.foreign_listener is not None:
            self._layer.foreign_listener()

    def _on_message(self, message: Any) -> None:
        if is_expired(message.headers):
            return
        try:
            for entry in open_envelope(open_body(message, self._queue.name, self._layer.signing)):
                self._deliver(list(entry.channels), codec.unpack(entry.packed), entry.group)
        except Refused:
            return
        except ValueError as error:
            self._on_bad_message(message, error)
