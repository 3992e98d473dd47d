"""The source of a layer on any broker that Kombu knows.

Kombu's connections are not made for several threads.  The thread that polls has the connection to itself, and lets it
go between two short waits while messages are being handled, so that those are acknowledged soon.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from kombu import Consumer
from kombu import Message as KombuMessage

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.worker.connections.amqp_heartbeats import Pulse
from channelsq.worker.connections.worker_connection import Connection
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.kombu_intake import KombuIntake
from channelsq.worker.sources.kombu_request import Key, KombuRequest, key_of
from channelsq.worker.sources.source import LayerSource

logger = logging.getLogger("channelsq.worker")

#: Seconds of one wait for a message while others are handled, and while none is.
BUSY, QUIET = 0.01, 0.25

#: Seconds between two looks at what there is of heartbeats.
LOOK_EVERY = 0.5

#: How many messages are remembered whose acknowledgement was lost with a connection.
MOST_REMEMBERED = 10_000


class KombuSource(LayerSource):
    """Reads the queues of a layer through Kombu; see :class:`LayerSource`.

    Args:
        layer: the layer.
        intake: makes requests of what comes.
        channels: which channels to read.
        credit: how many messages it may hold at once, without those that wait for their time.
    """

    def __init__(self, layer: KombuChannelLayer, intake: KombuIntake, channels: Iterable[str], credit: int) -> None:
        super().__init__(layer, channels, credit, intake.newer)
        self._intake = intake
        self._room = 0  # for messages that wait for their time
        self._lock = threading.RLock()
        #: The number of the connection, the first being 1.
        self.connections = 0
        self._arrived: list[KombuMessage] = []
        #: The messages that are held, by :func:`key_of`.
        self._held: dict[Key, KombuRequest] = {}
        #: The requests that are settled, each with what is to be done about its message.
        self._settled: deque[tuple[KombuRequest, Callable[[], None]]] = deque()
        #: The keys of messages that are done with and that the broker does not know to be.
        self._done: dict[Key, None] = {}
        self._looked = 0.0
        self._pulse: Pulse | None = None

    # -- the connection

    def _open(self) -> None:
        if self._connection is not None:
            return
        self._forget_delayed()  # of the lost connection
        self._newer.forget()
        with self._lock:
            connection = self._layer.open_connection(Connection, listens=True)
            try:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
                queues = [self._layer.queue(name) for name in list(self._wanted)]  # another thread may add one
                consumer = Consumer(
                    connection.default_channel,
                    queues=queues,
                    accept=sorted(self._intake.accept or ()),
                    on_message=self._arrived.append,
                    on_decode_error=self._refuse,
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

    def _refuse(self, message: KombuMessage, error: Exception) -> None:
        """Reject a message that Kombu cannot unpack."""
        self._intake.refuse(message, error)

    def _on_lost(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._consumer = None
            self._arrived.clear()
            self.connections += 1  # what came by the lost one is its broker's again
            if connection is not None:
                connection.collect()

    def is_lost(self, number: int) -> bool:
        """Return whether the connection with a number is not there any more."""
        return number != self.connections

    # -- messages

    def _receive(self, seconds: float) -> list[Request]:
        connection = self._connection
        assert connection is not None
        until = monotonic() + seconds
        while True:
            with self._lock:
                self._flush()
                # Elsewhere to look is to ask: Redis takes a message off its list for a connection that no one reads.
                if seconds or self._layer.is_amqp:
                    self._drain(min(max(0.0, until - monotonic()), BUSY if self._held else QUIET))
                requests = self._intake.take(self, self._arrived)
                self._arrived.clear()
                self._beat()
            if requests or monotonic() >= until or self._closing.is_set():
                return requests

    def _drain(self, seconds: float) -> None:
        """Wait for a message, and take those that have come with it."""
        connection: Any = self._connection
        try:
            connection.drain_events(timeout=seconds)
            while self._layer.is_amqp and len(self._arrived) < self._credit:
                connection.drain_events(timeout=0)
        except TimeoutError:
            return

    def _beat(self) -> None:
        connection: Any = self._connection
        now = monotonic()
        if connection.heartbeat and now - self._looked > LOOK_EVERY:
            self._looked = now
            connection.heartbeat_check()

    def hold(self, request: KombuRequest) -> None:
        """Note that a message is held."""
        self._held[request.key] = request

    def abandon(self, request: KombuRequest) -> None:
        """Note that a message is not held any more, which the broker delivers again."""
        if self._held.get(request.key) is request:
            del self._held[request.key]

    def knows(self, message: KombuMessage) -> bool:
        """Return whether a message that came again needs no request, as this source has or had it.

        The broker delivers again what a lost connection held, or what Kombu's ``visibility_timeout`` is too short for;
        a publisher sends again what the broker did not confirm.
        """
        key = key_of(message)
        request = self._held.get(key)
        if request is not None:
            request.adopt(message, self.connections)
            return True
        if key in self._done:
            del self._done[key]
            message.ack()
            return True
        return False

    def leave(self, message: KombuMessage) -> bool:
        """Hold a message that needs a newer worker, and have it delivered again later; False if too many are held."""
        if not self._newer.hold(str(message.delivery_tag), message.requeue):
            return False
        self._set_prefetch()
        return True

    def _give_back_newer(self) -> None:
        if self._newer:
            with self._lock:
                if self._newer.give_back():
                    self._set_prefetch()

    def _may_receive(self) -> bool:
        return len(self._held) - self._room < self._credit

    def _make_room(self, number: int) -> None:
        with self._lock:
            self._room += number
            if self._consumer is not None:
                self._set_prefetch()

    def _set_prefetch(self) -> None:
        connection: Any = self._connection
        # RabbitMQ takes the limit of a consumer for all of a channel's consumers if it is said to be global.
        is_global = not connection.qos_semantics_matches_spec
        self._consumer.qos(prefetch_count=self._credit + self._room + len(self._newer), apply_global=is_global)  # type: ignore[union-attr]

    # -- what becomes of them

    def settled(self, request: KombuRequest, conclude: Callable[[], None]) -> None:
        """Have the broker told of a message's outcome soon.  From any thread.

        Args:
            request: the message's.
            conclude: acknowledges the message, or has it delivered again.
        """
        self._settled.append((request, conclude))
        self._held.pop(request.key, None)

    def _flush(self) -> None:
        """Tell the broker of outcomes; raise the transport's errors."""
        while self._settled:
            request, conclude = self._settled[0]
            if not request.is_lost:
                conclude()
            elif request.is_done:
                self._done[request.key] = None
                if len(self._done) > MOST_REMEMBERED:
                    del self._done[next(iter(self._done))]
            self._settled.popleft()

    def settle(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # the thread that polls does it in a moment
        try:
            self._flush()
        except self.errors() as error:
            logger.warning("acknowledgements are lost, the broker is away: %s", error, extra={"action": "acks_lost"})
            self._on_lost()
        except Exception:  # the thread is counted on
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})
        finally:
            self._lock.release()

    def acknowledge_now(self, request: KombuRequest) -> bool:
        """Acknowledge a message before its consumer begins; return False if it comes again, as the connection is lost.

        From any thread but the one that polls.
        """
        known = threading.Event()

        def conclude() -> None:
            request.acknowledge_message()
            if self._layer.is_amqp:
                self._set_prefetch()  # whose answer comes after the broker has read the acknowledgement
            known.set()

        self._settled.append((request, conclude))
        while not (known.is_set() or request.is_lost):
            self.settle()
            known.wait(BUSY)
        return known.is_set()

    def cut(self) -> None:
        """Close the connection: with it the broker has what was not acknowledged."""
        self.close()

    def close(self) -> None:
        self._forget_delayed()
        if self._pulse is not None:
            self._pulse.stop()
        with self._lock:
            self.settle()
            connection, self._connection = self._connection, None
            self._consumer = None
            if connection is None:
                return
            try:
                try:
                    self._newer.give_back(every=True)
                finally:
                    connection.close()
            except Exception as error:
                logger.warning("%s: closed badly: %s", shown(self._layer.url), error, extra={"action": "close_failed"})
