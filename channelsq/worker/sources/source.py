"""The part of a source that is the same for every broker: one layer, read for a runner."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Any

from kombu import Connection, Consumer
from kombu.exceptions import OperationalError

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.transport.requests import worker_is_ending
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.delayed import Delayed
from channelsq.worker.sources.newer import Newer

logger = logging.getLogger("channelsq.worker")

#: Seconds between two attempts to connect, as sockets wait meanwhile.
EVERY = 0.5

#: Seconds that a poll takes at most while no message may be taken.
WITHOUT_CREDIT = 0.05


class LayerSource(ABC):
    """Reads a layer's queues through a connection of its own.

    Args:
        layer: the layer.
        channels: which channels to read.
        credit: how many messages it may hold at once, without those that wait for their time.
        newer: the messages that need a newer worker.
    """

    def __init__(self, layer: KombuChannelLayer, channels: Iterable[str], credit: int, newer: Newer) -> None:
        self._layer = layer
        self._wanted = dict.fromkeys(channels)
        self._credit = credit
        self._newer = newer
        self._connection: Connection | None = None
        self._consumer: Consumer | None = None
        self._delayed = Delayed()
        self._orders: deque[Callable[[], None]] = deque()
        self._closing = threading.Event()
        self._away = 0  # how often connecting has failed in a row

    # -- what a subclass does with the broker

    @abstractmethod
    def _open(self) -> None:
        """Connect, if there is no connection; raise the transport's errors."""

    @abstractmethod
    def _receive(self, seconds: float) -> Iterable[Request]:
        """Wait for messages, and return them; raise the transport's errors."""

    @abstractmethod
    def _may_receive(self) -> bool:
        """Return whether another message may be taken."""

    @abstractmethod
    def _make_room(self, number: int) -> None:
        """Have the broker deliver so many messages more at once, or fewer."""

    @abstractmethod
    def settle(self) -> None:
        """Send what is settled.  From any thread; raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held, and close the connection; the runner has ended, or what it runs is lost."""

    @abstractmethod
    def cut(self) -> None:
        """Send what is settled, and leave to other workers what runs, as the process ends now."""

    @abstractmethod
    def _on_lost(self) -> None:
        """Note that the connection is lost."""

    # -- for the runner

    def poll(self, seconds: float) -> list[Request]:
        """Send what is settled, wait for messages, and return those that may begin."""
        ready: list[Request] = []
        if worker_is_ending():  # with gevent it takes seconds until Celery stops its steps
            self.settle()
            self._closing.wait(seconds)
            return ready
        try:
            self._open()
            self._carry_out()
            self._give_back_newer()
            ready = self._whose_time_has_come()
            if not (self._wanted and self._may_receive()):
                # Acknowledgements are not sent with a poll then.  No message ends this wait, so it is short.
                self.settle()
                self._closing.wait(0.0 if ready else self._delayed.seconds(WITHOUT_CREDIT if self._wanted else seconds))
                return ready
            requests = self._receive(0.001 if ready else self._delayed.seconds(seconds))
            if self._away:
                self._came_back()
            return ready + self._begin_or_hold(requests)
        except self.errors() as error:
            self._on_lost()
            self._lost(error)
        except Exception:  # of this code, or of options that cannot be used
            logger.exception("%s: reading failed", shown(self._layer.url), extra={"action": "poll_failed"})
        if not ready:  # those whose time has come do not need the connection to begin
            self._closing.wait(EVERY)
        return ready

    def has_credit(self) -> bool:
        """Return whether another message may be taken, or one that waits may begin soon."""
        return self._connection is None or len(self._delayed) > 0 or self._may_receive()

    def give_back(self, jobs: Sequence[Any]) -> None:
        """Leave messages that were not begun to other workers."""
        for job in jobs:
            try:
                job.give_back()
            except Exception as error:  # they come again when the lease has ended
                logger.warning("messages could not be given back: %s", error, extra={"action": "give_back_failed"})
                return

    def interrupt(self) -> None:
        """Have a poll that waits return soon."""
        self._closing.set()

    # -- for the worker

    def read(self, channel: str) -> None:
        """Read one more channel."""
        self._wanted[channel] = None
        self._orders.append(lambda: self._add_queue(channel))

    def cease(self, channel: str) -> None:
        """Read a channel no more."""
        self._wanted.pop(channel, None)
        self._orders.append(lambda: self._cancel_queue(channel))

    # -- the connection

    def errors(self) -> tuple[type[BaseException], ...]:
        """Return the transport's errors."""
        connection = self._connection or self._layer.open_connection()
        return (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)

    def _lost(self, error: BaseException) -> None:
        """Log a lost connection, the first, second, fourth, eighth time in a row."""
        self._away += 1
        if self._away & (self._away - 1) == 0:
            logger.warning(
                "%s: the broker of the layer is away (%s); trying every %g s",
                shown(self._layer.url), error, EVERY,
                extra={"action": "source_away"},
            )  # fmt: skip

    def _came_back(self) -> None:
        self._away = 0
        logger.info("%s: the broker of the layer is back", shown(self._layer.url), extra={"action": "source_back"})

    def _carry_out(self) -> None:
        """Do what other threads have asked for."""
        while self._orders:
            self._orders[0]()  # which may fail, as the connection is lost, and is then done with the next one
            self._orders.popleft()

    def _add_queue(self, channel: str) -> None:
        consumer = self._consumer
        if consumer is not None and not consumer.consuming_from(self._layer.queue(channel)):
            consumer.add_queue(self._layer.queue(channel))
            consumer.consume()

    def _cancel_queue(self, channel: str) -> None:
        if self._consumer is not None:
            self._consumer.cancel_by_queue(self._layer.queue(channel).name)

    # -- messages that wait

    def _give_back_newer(self) -> None:
        """Give back messages that need a newer worker, when it is time; raise the transport's errors."""
        if self._newer:
            self._newer.give_back()

    def _forget_delayed(self) -> None:
        """Forget the messages that wait for their time; the broker has them again."""
        for request in self._delayed.clear():
            request.abandon()

    def _begin_or_hold(self, requests: Iterable[Request]) -> list[Request]:
        """Return new requests that may begin; the others wait for their time, and take no credit meanwhile."""
        ready = []
        for request in requests:
            if request.due > time():
                self._make_room(1)
                self._delayed.add(request, request.due)
            else:
                request.due = 0.0
                ready.append(request)
        return self._within_limits(ready)

    def _whose_time_has_come(self) -> list[Request]:
        """Return requests that have waited and may begin."""
        due = self._delayed.due()
        for request in due:
            if request.due:
                request.due = 0.0
                self._make_room(-1)
        return self._within_limits(due)

    def _within_limits(self, requests: Iterable[Request]) -> list[Request]:
        """Return the requests that the rate limits of their tasks let begin; the others wait."""
        ready = []
        for request in requests:
            until = self._delayed.limited_until(request)
            if until:
                self._delayed.add(request, until)
            else:
                ready.append(request)
        return ready
