"""The source of a layer on Redis Streams."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from typing import Any, cast

from kombu import Connection, Consumer
from kombu.exceptions import OperationalError

from channelsq.layers.redis import RedisChannelLayer
from channelsq.layers.urls import shown
from channelsq.transport.channel import Channel
from channelsq.worker.sources.delayed import Delayed
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.request import Request

logger = logging.getLogger("channelsq.worker")

#: Seconds between two attempts to connect, as sockets wait meanwhile.
EVERY = 0.5

#: Seconds that a poll takes at most while no message may be taken.
WITHOUT_CREDIT = 0.05

#: Seconds between two looks for an answer to acknowledgements that nothing was sent after.
LOOK_EVERY = 0.5


class StreamSource:
    """Reads a layer's queues through a connection of its own.

    Args:
        layer: the layer.
        intake: makes requests of what comes.
        channels: which channels to read.
        credit: how many messages it may hold at once, without those that wait for their time.
        opened: is told the name under which it holds messages, at each connection.
        reluctance: seconds for which it leaves what dead consumers hold, at its first connection.
    """

    def __init__(
        self,
        layer: RedisChannelLayer,
        intake: Intake,
        channels: Iterable[str],
        credit: int,
        opened: Callable[[str], None],
        reluctance: float = 0.0,
    ) -> None:
        self._layer = layer
        self._intake = intake
        self._wanted = dict.fromkeys(channels)
        self._credit = credit
        self._opened = opened
        self._reluctance = reluctance
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._consumer: Consumer | None = None
        self._delayed = Delayed()
        self._orders: deque[Callable[[], None]] = deque()
        self._closing = threading.Event()
        self._away = 0  # how often connecting has failed in a row
        self._looked = 0.0

    # -- for the runner

    def poll(self, seconds: float) -> list[Request]:
        """Send what is settled, wait for messages, and return those that may begin."""
        ready: list[Request] = []
        try:
            channel = self._open()
            self._carry_out()
            channel.give_back_waiting()  # whether or not there is credit, which it frees
            ready = self._whose_time_has_come(channel)
            if not (self._wanted and channel.qos.can_consume()):
                # The channel would not send acknowledgements either.  No message ends this wait, so it is short.
                self.settle()
                self._closing.wait(0.0 if ready else self._delayed.seconds(WITHOUT_CREDIT if self._wanted else seconds))
                return ready
            entries = channel.poll(0.001 if ready else self._delayed.seconds(seconds))
            if monotonic() - self._looked > LOOK_EVERY:
                self._looked = monotonic()
                channel.look_for_answer()
            if self._away:
                self._came_back()
            return ready + self._begin_or_hold(channel, self._intake.take(channel, entries))
        except self._errors() as error:
            self._lost(error)
        except Exception:  # of this code, or of options that cannot be used
            logger.exception("%s: reading failed", shown(self._layer.url), extra={"action": "poll_failed"})
        if not ready:  # those whose time has come do not need the connection to begin
            self._closing.wait(EVERY)
        return ready

    def settle(self) -> None:
        """Send what is settled."""
        channel = self._channel
        if channel is None:
            return
        try:
            channel.flush_acks(wait=self._closing.is_set())  # then no poll comes that would read the answer
        except channel.connection_errors as error:
            logger.warning("acknowledgements wait, Redis is away: %s", error, extra={"action": "acks_wait"})
        except Exception:  # they wait, too, and the thread is counted on
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})

    def has_credit(self) -> bool:
        """Return whether another message may be taken, or one that waits may begin soon."""
        channel = self._channel
        return channel is None or len(self._delayed) > 0 or bool(channel.qos.can_consume())

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
        channel = self._channel
        if channel is not None:
            try:
                channel.interrupt()
            except Exception as error:  # then it returns by itself, within a second
                logger.debug("a poll could not be interrupted: %s", error, extra={"action": "interrupt_failed"})

    # -- for the worker

    def close(self) -> None:
        """Give back what is held, and close the connection; the runner has ended, or what it runs is lost."""
        for request in self._delayed.clear():
            request.leave()
        connection, self._connection = self._connection, None
        channel, self._channel = self._channel, None
        if channel is None or connection is None:
            return
        try:
            connection.close()
        except Exception as error:
            logger.warning("%s: closed badly: %s", shown(self._layer.url), error, extra={"action": "close_failed"})

    def read(self, channel: str) -> None:
        """Read one more channel."""
        self._wanted[channel] = None
        self._orders.append(lambda: self._add_queue(channel))

    def cease(self, channel: str) -> None:
        """Read a channel no more."""
        self._wanted.pop(channel, None)
        self._orders.append(lambda: self._cancel_queue(channel))

    # -- the connection

    def _open(self) -> Channel:
        channel = self._channel
        if channel is not None and not channel.closed:
            return channel
        for request in self._delayed.clear():  # of the closed channel, which has given them back
            request.leave()
        connection = self._layer.open_connection()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            channel = cast(Channel, connection.default_channel)
            channel.render = self._layer.sender.render
            channel.basic_qos(0, self._credit, False)
            queues = [self._layer.queue(name) for name in list(self._wanted)]  # another thread may add one
            consumer = Consumer(channel, queues=queues, on_message=_refuse)
            self._opened(channel.streams.consumer)
            consumer.consume()
            if self._reluctance:
                channel.put_off_take_over(self._reluctance)
                self._reluctance = 0.0
        except BaseException:
            connection.close()
            raise
        self._connection, self._channel, self._consumer = connection, channel, consumer
        return channel

    def _errors(self) -> tuple[type[BaseException], ...]:
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

    def _begin_or_hold(self, channel: Channel, requests: Iterable[Request]) -> list[Request]:
        """Return new requests that may begin; the others wait for their time, and take no credit meanwhile."""
        ready = []
        for request in requests:
            if request.due > time():
                channel.qos.prefetch_count += 1
                self._delayed.add(request, request.due)
            else:
                request.due = 0.0
                ready.append(request)
        return self._within_limits(ready)

    def _whose_time_has_come(self, channel: Channel) -> list[Request]:
        """Return requests that have waited and may begin."""
        due = self._delayed.due()
        for request in due:
            if request.due:
                request.due = 0.0
                channel.qos.prefetch_count -= 1
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


def _refuse(message: Any) -> None:
    """Never called: the source polls the channel itself."""
    raise NotImplementedError
