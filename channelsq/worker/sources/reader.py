"""The reader of one layer: it polls the layer's source for a runner, and delays messages with an ETA."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Any

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.source_contract import SourceOptions
from channelsq.transport.celery_end_internals import worker_is_ending
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.delayed import Delayed
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.newer import Newer

logger = logging.getLogger("channelsq.worker")

#: Seconds between two attempts to connect; short, as sockets wait meanwhile.
EVERY = 0.5

#: The most seconds of a poll without credit.
WITHOUT_CREDIT = 0.05


class Reader:
    """Reads a layer's channels.

    Args:
        layer: the layer.
        intake: the intake, which creates requests.
        channels: the channels to read.
        credit: the most messages that are held at once, without delayed ones.
        opened: see :class:`~channelsq.layers.contract.source_contract.SourceOptions`.
        reluctance: see :class:`~channelsq.layers.contract.source_contract.SourceOptions`.
    """

    def __init__(
        self,
        layer: BaseChannelLayer,
        intake: Intake,
        channels: Iterable[str],
        credit: int,
        opened: Callable[[str], None] | None = None,
        reluctance: float = 0.0,
    ) -> None:
        self._layer = layer
        self._intake = intake
        self._wanted = dict.fromkeys(channels)
        options = SourceOptions(tuple(self._wanted), credit, intake.accept or (), opened or _ignore, reluctance)
        #: The source of the layer's messages.
        self.source = layer.source(options)
        self._newer = Newer(self.source)
        self._delayed = Delayed()
        self._orders: deque[Callable[[], None]] = deque()
        self._closing = threading.Event()
        self._away = 0  # the number of failed connections in a row

    # -- Called by the runner

    def poll(self, seconds: float) -> list[Request]:
        """Send settled messages, wait for new ones, and return those that may begin."""
        ready: list[Request] = []
        source = self.source
        if worker_is_ending():  # with gevent, Celery stops its steps only after seconds
            source.flush()
            self._closing.wait(seconds)
            return ready
        try:
            if source.connect():
                self._forget()
            self._carry_out()
            self._newer.leave()
            ready = self._whose_time_has_come()
            if not (self._wanted and source.has_credit()):
                # Without a poll, acknowledgements are sent separately.  No message ends this wait, so it is short.
                source.flush()
                self._closing.wait(0.0 if ready else self._delayed.seconds(WITHOUT_CREDIT if self._wanted else seconds))
                return ready
            deliveries = source.poll(0.001 if ready else self._delayed.seconds(seconds))
            if self._away:
                self._came_back()
            return ready + self._begin_or_hold(self._intake.take(source, deliveries, self._newer))
        except source.errors as error:
            source.lost()
            self._lost(error)
        except Exception:  # an error of this code, or unusable options
            logger.exception("%s: reading failed", self._described, extra={"action": "poll_failed"})
        if not ready:  # due messages may begin without the connection
            self._closing.wait(EVERY)
        return ready

    def has_credit(self) -> bool:
        """Return whether the source has credit, or a delayed message may begin soon."""
        return len(self._delayed) > 0 or self.source.has_credit()

    def settle(self) -> None:
        """Send settled messages.  From any thread; never raise."""
        self.source.flush()

    def give_back(self, jobs: Sequence[Any]) -> None:
        """Leave messages that were not begun to other workers."""
        for job in jobs:
            try:
                job.give_back()
            except Exception as error:  # they are redelivered when the lease has expired
                logger.warning("messages could not be given back: %s", error, extra={"action": "give_back_failed"})
                return

    def interrupt(self) -> None:
        """Make a waiting poll return soon."""
        self._closing.set()
        self.source.interrupt()

    # -- Called by the worker

    def read(self, channel: str) -> None:
        """Read one more channel."""
        self._wanted[channel] = None
        self._orders.append(lambda: self.source.read(channel))

    def cease(self, channel: str) -> None:
        """Stop reading a channel."""
        self._wanted.pop(channel, None)
        self._orders.append(lambda: self.source.cease(channel))

    def cut(self) -> None:
        """Send settled messages; leave running ones to other workers, as the process ends now."""
        self.source.cut()

    def close(self) -> None:
        """Give back held messages, and close the connection, after the runner has ended or was cut."""
        for request in self._delayed.clear():
            request.leave()
        try:
            self._newer.leave(every=True)
        except Exception as error:  # a lost connection: the broker redelivers the messages
            logger.warning("%s: closed badly: %s", self._described, error, extra={"action": "close_failed"})
        self.source.close()

    # -- Connection

    @property
    def _described(self) -> str:
        return shown(str(getattr(self._layer, "url", ""))) or type(self._layer).__name__

    def _lost(self, error: BaseException) -> None:
        """Log a lost connection, at the first, second, fourth, eighth … failure in a row."""
        self._away += 1
        if self._away & (self._away - 1) == 0:
            logger.warning(
                "%s: the broker of the layer is away (%s); trying every %g s",
                self._described, error, EVERY,
                extra={"action": "source_away"},
            )  # fmt: skip

    def _came_back(self) -> None:
        self._away = 0
        logger.info("%s: the broker of the layer is back", self._described, extra={"action": "source_back"})

    def _carry_out(self) -> None:
        """Carry out the orders of other threads."""
        while self._orders:
            self._orders[0]()  # if the connection is lost, the order is kept for the next one
            self._orders.popleft()

    def _forget(self) -> None:
        """Forget held messages: the broker redelivers them."""
        self._newer.forget()
        for request in self._delayed.clear():
            request.abandon()

    # -- Delayed messages

    def _begin_or_hold(self, requests: Iterable[Request]) -> list[Request]:
        """Return new requests that may begin; delay the others, which use no credit meanwhile."""
        ready = []
        for request in requests:
            if request.due > time():
                self.source.make_room(1)
                self._delayed.add(request, request.due)
            else:
                request.due = 0.0
                ready.append(request)
        return self._within_limits(ready)

    def _whose_time_has_come(self) -> list[Request]:
        """Return delayed requests that may begin."""
        due = self._delayed.due()
        for request in due:
            if request.due:
                request.due = 0.0
                self.source.make_room(-1)
        return self._within_limits(due)

    def _within_limits(self, requests: Iterable[Request]) -> list[Request]:
        """Return the requests that their tasks' rate limits allow; delay the others."""
        ready = []
        for request in requests:
            until = self._delayed.limited_until(request)
            if until:
                self._delayed.add(request, until)
            else:
                ready.append(request)
        return ready


def _ignore(holder: str) -> None:
    """Ignore the name of the holder."""
