"""The source of a layer on Redis Streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, cast

from kombu import Consumer

from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.redis import RedisChannelLayer
from channelsq.transport.streams_channel import Channel
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.source import LayerSource
from channelsq.worker.sources.stream_intake import StreamIntake

logger = logging.getLogger("channelsq.worker")

#: Seconds between two looks for an answer to acknowledgements that nothing was sent after.
LOOK_EVERY = 0.5


class StreamSource(LayerSource):
    """Reads the streams of a layer; see :class:`LayerSource`.

    Args:
        layer: the layer.
        intake: makes requests of what comes.
        channels: which channels to read.
        credit: how many messages it may hold at once, without those that wait for their time.
        opened: is told the name under which it holds messages, at each connection.
        reluctance: seconds for which it leaves what dead consumers hold, at its first connection.
    """

    _layer: RedisChannelLayer

    def __init__(
        self,
        layer: RedisChannelLayer,
        intake: StreamIntake,
        channels: Iterable[str],
        credit: int,
        opened: Callable[[str], None],
        reluctance: float = 0.0,
    ) -> None:
        super().__init__(layer, channels, credit, intake.newer)
        self._intake = intake
        self._opened = opened
        self._reluctance = reluctance
        self._channel: Channel | None = None
        self._looked = 0.0

    def _open(self) -> None:
        channel = self._channel
        if channel is None or channel.closed:
            self._forget_delayed()  # of the closed channel, which has given them back
            self._newer.forget()  # others take these over
            channel = self._connect()
        channel.give_back_waiting()  # whether or not there is credit, which it frees

    def _connect(self) -> Channel:
        connection = self._layer.open_connection()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            channel = cast(Channel, connection.default_channel)
            channel.render = self._layer.sender.render
            channel.on_newer = self._intake.on_newer  # type: ignore[method-assign]
            channel.on_expired = self._intake.on_expired  # type: ignore[method-assign]
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

    def _receive(self, seconds: float) -> list[Request]:
        channel = self._channel
        assert channel is not None
        entries = channel.poll(seconds)
        if monotonic() - self._looked > LOOK_EVERY:
            self._looked = monotonic()
            channel.look_for_answer()
        return self._intake.take(channel, entries)

    def _may_receive(self) -> bool:
        return self._channel is None or bool(self._channel.qos.can_consume())

    def _make_room(self, number: int) -> None:
        if self._channel is not None:
            self._channel.qos.prefetch_count += number

    def _on_lost(self) -> None:
        """Go on: the channel knows, and connects again."""

    def settle(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            channel.flush_acks(wait=self._closing.is_set())  # then no poll comes that would read the answer
        except channel.connection_errors as error:
            logger.warning("acknowledgements wait, Redis is away: %s", error, extra={"action": "acks_wait"})
        except Exception:  # they wait, too, and the thread is counted on
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})

    def cut(self) -> None:
        """Send what is settled; what the process holds is its worker's to leave to others."""
        self.settle()

    def interrupt(self) -> None:
        super().interrupt()
        channel = self._channel
        if channel is not None:
            try:
                channel.interrupt()
            except Exception as error:  # then it returns by itself, within a second
                logger.debug("a poll could not be interrupted: %s", error, extra={"action": "interrupt_failed"})

    def close(self) -> None:
        self._forget_delayed()
        connection, self._connection = self._connection, None
        channel, self._channel = self._channel, None
        if channel is None or connection is None:
            return
        try:
            try:
                self._newer.give_back(every=True)
            finally:
                connection.close()
        except Exception as error:
            logger.warning("%s: closed badly: %s", shown(self._layer.url), error, extra={"action": "close_failed"})


def _refuse(message: Any) -> None:
    """Never called: the source polls the channel itself."""
    raise NotImplementedError
