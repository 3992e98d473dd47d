"""The reader of one layer: it polls the layer's source for a runner, and has messages wait for their time."""

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
from channelsq.transport.requests import worker_is_ending
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.delayed import Delayed
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.newer import Newer

logger = logging.getLogger("channelsq.worker")

#: Seconds between two attempts to connect, as sockets wait meanwhile.
EVERY = 0.5

#: Seconds that a poll takes at most while no message may be taken.
WITHOUT_CREDIT = 0.05


class Reader:
    """Reads a layer's channels.

    Args:
        layer: the layer.
        intake: makes requests of its messages.
        channels: which channels to read.
        credit: how many messages it may hold at once, without those that wait for their time.
        opened: see :class:`~channelsq.layers.contract.source_contract.SourceOptions`.
        reluctance: see there.
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
        #: The broker's side.
        self.source = layer.source(options)
        self._newer = Newer(self.source)
        self._delayed = Delayed()
        self._orders: deque[Callable[[], None]] = deque()
        self._closing = threading.Event()
        self._away = 0  # how often connecting has failed in a row

    # -- for the runner

    def poll(self, seconds: float) -> list[Request]:
        """Send what is settled, wait for messages, and return those that may begin."""
        ready: list[Request] = []
        source = self.source
        if worker_is_ending():  # with gevent it takes seconds until Celery stops its steps
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
                # Acknowledgements are not sent with a poll then.  No message ends this wait, so it is short.
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
        except Exception:  # of this code, or of options that cannot be used
            logger.exception("%s: reading failed", self._described, extra={"action": "poll_failed"})
        if not ready:  # those whose time has come do not need the connection to begin
            self._closing.wait(EVERY)
        return ready

    def has_credit(self) -> bool:
        """Return whether another message may be taken, or one that waits may begin soon."""
        return len(self._delayed) > 0 or self.source.has_credit()

    def settle(self) -> None:
        """Send what is settled.  From any thread; raises nothing."""
        self.source.flush()

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
        self.source.interrupt()

    # -- for the worker

    def read(self, channel: str) -> None:
        """Read one more channel."""
        self._wanted[channel] = None
        self._orders.append(lambda: self.source.read(channel))

    def cease(self, channel: str) -> None:
        """Read a channel no more."""
        self._wanted.pop(channel, None)
        self._orders.append(lambda: self.source.cease(channel))

    def cut(self) -> None:
        """Send what is settled, and leave to other workers what runs, as the process ends now."""
        self.source.cut()

    def close(self) -> None:
        """Give back what is held, and close the connection; the runner has ended, or what it runs is lost."""
        for request in self._delayed.clear():
            request.leave()
        try:
            self._newer.leave(every=True)
        except Exception as error:  # of a connection that is lost: the broker has them again
            logger.warning("%s: closed badly: %s", self._described, error, extra={"action": "close_failed"})
        self.source.close()

    # -- the connection

    @property
    def _described(self) -> str:
        return shown(str(getattr(self._layer, "url", ""))) or type(self._layer).__name__

    def _lost(self, error: BaseException) -> None:
        """Log a lost connection, the first, second, fourth, eighth time in a row."""
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
        """Do what other threads have asked for."""
        while self._orders:
            self._orders[0]()  # which may fail, as the connection is lost, and is then done with the next one
            self._orders.popleft()

    def _forget(self) -> None:
        """Forget what was held: the broker has it again."""
        self._newer.forget()
        for request in self._delayed.clear():
            request.abandon()

    # -- messages that wait

    def _begin_or_hold(self, requests: Iterable[Request]) -> list[Request]:
        """Return new requests that may begin; the others wait for their time, and take no credit meanwhile."""
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
        """Return requests that have waited and may begin."""
        due = self._delayed.due()
        for request in due:
            if request.due:
                request.due = 0.0
                self.source.make_room(-1)
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


def _ignore(holder: str) -> None:
    """Ignore the name of the holder."""
