"""The reader of the channels whose messages a gateway sends out; it reads them as a worker reads its channels.

One thread polls the layer's source and hands messages to the event loop.  The source keeps a message until it is
settled: if this process is killed, another process gets it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core.wire_version import NewerWire, check_headers, teller
from channelsq.delayed import ID_KEY, may_leave
from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.log_fields import extra
from channelsq.layers.contract.source_contract import Source, SourceOptions, TaskMessage
from channelsq.layers.wire.signing import Refused
from channelsq.layers.wire.task_messages import content_of, moment_of
from channelsq.layers.wire.wire_forms import CONTENT_TYPE, raw_body

logger = logging.getLogger("channelsq.interface.gateway")

#: The most seconds of one poll, of a wait without credit, and between two attempts to connect.
_POLL, _WITHOUT_CREDIT, _AGAIN = 1.0, 0.05, 0.5

#: Seconds before a message that needs a newer process is left to others.
_NEWER = 1.0


class Taken(NamedTuple):
    """A message off a channel, held by this process."""

    channel: str
    id: str
    content: dict[str, Any]
    #: Whether another process had it before, and may have begun to send it.
    is_redelivered: bool
    delivery: Any


class ChannelReader:
    """Reads some channels of a layer; used in one event loop.

    Args:
        layer: the layer.
        channels: the channels.
        credit: the most messages that are held at once.
        take: called in the event loop with each message.
    """

    def __init__(
        self, layer: ChannelLayerWrapper, channels: Sequence[str], credit: int, take: Callable[[Taken], None]
    ) -> None:
        self._layer = layer
        self._signing = layer.channel_layer.signing
        self._encryption = layer.channel_layer.protection.encryption
        self._take = take
        self._channels = {layer.channel_layer.queue_name(channel): channel for channel in channels}
        self._source: Source[Any] = layer.channel_layer.source(
            SourceOptions(tuple(channels), credit, ("json", "application/json", CONTENT_TYPE))
        )
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="channelsq-gateway-reader", daemon=True)
        self._stopping = threading.Event()
        self._delayed: list[tuple[float, int, Taken]] = []
        self._numbers = itertools.count()
        self._flushing: asyncio.Task[None] | None = None
        #: Whether the source was connected at its last poll.
        self.is_connected = False

    def start(self) -> None:
        """Start to read."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def cease(self) -> None:
        """Take no more messages; those that are held can still be settled."""
        self._stopping.set()
        self._source.interrupt()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 5.0)

    async def close(self) -> None:
        """Send the outcomes, leave all held messages to other processes, and close the connection."""
        if self._flushing is not None:
            await self._flushing
        await asyncio.to_thread(self._source.flush)
        await asyncio.to_thread(self._source.close)

    # -- outcomes, in the event loop

    def is_lost(self, taken: Taken) -> bool:
        """Return whether the broker has redelivered a message, as the connection was lost."""
        return self._source.is_lost(taken.delivery)

    def settle(self, taken: Taken) -> None:
        """Acknowledge a message."""
        self._source.settle(taken.delivery, None)
        self._flush_soon()

    def give_back(self, taken: Taken) -> None:
        """Leave a message to other processes."""
        self._loop.run_in_executor(None, self._source.give_back, taken.delivery)
        self._flush_soon()

    def abandon(self, taken: Taken) -> None:
        """Forget a lost message."""
        self._source.abandon(taken.delivery)

    def _flush_soon(self) -> None:
        """Send the outcomes; a poll that waits for messages would send them a second later."""
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush())

    async def _flush(self) -> None:
        await asyncio.sleep(0)  # outcomes of the same turn leave together
        self._flushing = None
        await asyncio.to_thread(self._source.flush)

    # -- in the thread

    def _run(self) -> None:
        source, away = self._source, 0
        while not self._stopping.is_set():
            try:
                if source.connect():
                    self._delayed.clear()  # the broker redelivers them
                self._hand_out(self._due())
                if source.has_credit():
                    self._read(source.poll(self._patience()))
                else:
                    source.flush()
                    self._stopping.wait(_WITHOUT_CREDIT)
                if away:
                    logger.info("the broker of the channels is back", extra=extra("source_back"))
                away = 0
                self.is_connected = True
            except source.errors as error:
                self.is_connected = False
                source.lost()
                away += 1
                if away & (away - 1) == 0:
                    logger.warning("the broker of the channels is away: %s", error, extra=extra("source_away"))
                self._stopping.wait(_AGAIN)
            except Exception:  # the thread must survive
                logger.exception("reading failed", extra=extra("poll_failed"))
                self._stopping.wait(_AGAIN)

    def _patience(self) -> float:
        return _POLL if not self._delayed else min(_POLL, max(0.001, self._delayed[0][0] - time.time()))

    def _due(self) -> list[Taken]:
        due = []
        while self._delayed and self._delayed[0][0] <= time.time():
            due.append(heapq.heappop(self._delayed)[2])
            self._source.make_room(-1)
        return due

    def _hand_out(self, messages: Sequence[Taken]) -> None:
        for taken in messages:
            handle_id = taken.content.pop(ID_KEY, None)
            if handle_id is None or self._may_leave(taken, handle_id):
                self._loop.call_soon_threadsafe(self._take, taken)

    def _may_leave(self, taken: Taken, handle_id: object) -> bool:
        """Return whether a delayed message is handed out now; drop it if it was cancelled."""
        try:
            if may_leave(self._layer, handle_id):
                return True
        except BrokerUnavailable:
            taken.content[ID_KEY] = handle_id
            self._delay(taken, time.time() + _AGAIN)
            return False
        self._source.drop(taken.delivery)
        return False

    def _delay(self, taken: Taken, due: float) -> None:
        self._source.make_room(1)
        heapq.heappush(self._delayed, (due, next(self._numbers), taken))

    def _read(self, deliveries: Sequence[Any]) -> None:
        source = self._source
        for place, delivery in enumerate(deliveries):
            try:
                self._open(delivery)
            except Exception as error:  # any error that a message's content may cause
                if isinstance(error, source.errors):
                    source.unread(deliveries[place:])
                    raise
                logger.exception("a message could not be read", extra=extra("message_unreadable"))
                source.drop(delivery)

    def _open(self, delivery: Any) -> None:
        plain = self._source.plain(delivery)
        if plain is not None:
            channel, message_id, content = plain
            self._hand_out([Taken(channel, message_id, content, False, delivery)])
            return
        queue = self._source.queue_of(delivery)
        try:
            message = self._source.open(delivery)
            if message is not None:
                self._take_task(delivery, message, queue)
        except NewerWire as error:
            teller.tell(queue, error, "is left to newer processes")
            self._stopping.wait(_NEWER)
            self._source.leave(delivery)
        except Refused as error:  # the check has logged it
            self._source.set_aside(delivery, error.reason)
        except (TypeError, ValueError) as error:
            channel = self._channels.get(queue, queue)
            logger.error(
                "channel %s: a message was refused: %s", channel, error, extra=extra("foreign_message_refused", channel)
            )
            self._source.set_aside(delivery, str(error))

    def _take_task(self, delivery: Any, message: TaskMessage, queue: str) -> None:
        """Read a message in Celery's form: sent by another program, delayed, expired or redelivered."""
        source, headers = self._source, message.headers
        check_headers(headers)
        channel = self._channels[queue]
        if headers.get("task") != queue:
            raise ValueError(f"it is for the task {headers.get('task')!r}")
        identity = headers.get("id")
        if not isinstance(identity, str):
            raise ValueError("it has no id")
        if self._signing is not None:
            body = raw_body(message) if message.content_type == CONTENT_TYPE else b""
            self._signing.check_task(queue, identity, body)
        content = self._encryption.open_content(queue, content_of(message, channel))
        if source.is_expired(delivery, message):
            logger.warning(
                "channel %s: a message expired before it was sent", channel, extra=extra("message_expired", channel)
            )
            source.drop(delivery)
            return
        is_redelivered = source.is_redelivered(delivery, message)
        if is_redelivered and source.is_deadly(delivery, identity):
            source.set_aside(delivery, "too many processes died with it")
            return
        taken = Taken(channel, identity, content, is_redelivered, delivery)
        eta = moment_of(headers.get("eta"), "eta")
        if eta is not None and eta.timestamp() > time.time():
            self._delay(taken, eta.timestamp())
        else:
            self._hand_out([taken])
