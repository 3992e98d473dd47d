"""From the channel layer to the clients: replies come in, in threads or in the loop, and go to sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from websockets.frames import Frame, Opcode

from channelsq.interface.logs import extra
from channelsq.interface.stats import Stats
from channelsq.layers import codec
from channelsq.layers.wire import Entry

logger = logging.getLogger("channelsq.interface.replies")

#: How many deliveries one turn of the event loop handles, so that sockets are read in between.
_TURN = 1000


class Delivery:
    """A message for one or many clients; its WebSocket frame is encoded once for all of them."""

    __slots__ = ("_frame", "channels", "group", "message", "size")

    def __init__(self, channels: Sequence[str], message: dict[str, Any], group: str | None = None) -> None:
        self.channels = channels
        self.message = message
        #: The group that it was sent to; None if it was sent to the client itself.
        self.group = group
        self.size = 100 + sum(
            len(value) for key in ("text", "bytes", "content") if isinstance(value := message.get(key), (str, bytes))
        )
        self._frame: bytes | None = None

    def frame(self) -> bytes:
        """The uncompressed frame of the message's ``text`` or ``bytes``, one of which is there."""
        if self._frame is None:
            text = self.message.get("text")
            frame = (
                Frame(Opcode.BINARY, self.message["bytes"])
                if text is None
                else Frame(Opcode.TEXT, text.encode("utf-8", "replace"))
            )
            self._frame = frame.serialize(mask=False)
        return self._frame


class Receiver(Protocol):
    """A client that replies go to."""

    def on_reply(self, delivery: Delivery) -> None:
        """Handle a reply; called in the event loop."""

    def on_done(self, order: int) -> None:
        """Handle the report that the application is done with a message; called in the event loop."""


class Replies:
    """Hands replies to the clients that they are for.

    Args:
        loop: the event loop that the clients live in.
        stats: where unknown clients and lost replies are counted.
        unknown: called in the loop with a channel nobody here listens on, and its message.
        limit: how many bytes of replies may wait for the loop.
        patience: how long (seconds) a full hand-over holds up the layer's thread before it loses a reply.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stats: Stats,
        unknown: Callable[[str, dict[str, Any]], None],
        *,
        limit: int = 64 * 1024 * 1024,
        patience: float = 10.0,
    ) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._stats = stats
        self._unknown = unknown
        self._limit = limit
        self._patience = patience
        self._receivers: dict[str, Receiver] = {}
        self._waiting: deque[Delivery] = deque()
        self._size = 0
        self._scheduled = False
        self._room = threading.Condition()
        self._lost_logged = -1.0
        #: What :meth:`hand_out` was given and the loop has had no turn for yet.
        self._entries: deque[Entry] = deque()
        self._when_handed_out: Callable[[], None] | None = None

    def register(self, channel: str, receiver: Receiver) -> None:
        """From now on ``receiver`` gets what is sent to ``channel``."""
        self._receivers[channel] = receiver

    def unregister(self, channel: str) -> None:
        """Nobody listens on ``channel`` any more."""
        self._receivers.pop(channel, None)

    def deliver(self, channels: Sequence[str], message: dict[str, Any], group: str | None = None) -> None:
        """Take over a message; called by the layer, from any thread."""
        delivery = Delivery(channels, message, group)
        with self._room:
            if self._size + delivery.size > self._limit and not self._wait_for_room(delivery):
                self._lose(delivery)
                return
            self._waiting.append(delivery)
            self._size += delivery.size
            if self._scheduled:
                return
            self._scheduled = True
        # A closed loop raises RuntimeError: every client of it is gone.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._hand_out)

    def _wait_for_room(self, delivery: Delivery) -> bool:
        if threading.get_ident() == self._loop_thread:
            return False
        return self._room.wait_for(lambda: self._size + delivery.size <= self._limit, self._patience)

    def _lose(self, delivery: Delivery) -> None:
        self._stats.count("replies.lost", len(delivery.channels))
        now = time.monotonic()
        if now - self._lost_logged >= 1:
            self._lost_logged = now
            logger.error(
                "a reply was dropped: more than %d bytes of replies wait for this process (%d dropped so far)",
                self._limit,
                self._stats["replies.lost"],
                extra=extra("reply_lost", delivery.channels[0] if delivery.channels else ""),
            )

    def _hand_out(self) -> None:
        with self._room:
            turn = [self._waiting.popleft() for _ in range(min(_TURN, len(self._waiting)))]
            self._size -= sum(delivery.size for delivery in turn)
            self._scheduled = bool(self._waiting)
            if self._scheduled:
                self._loop.call_soon(self._hand_out)
            self._room.notify_all()
        for delivery in turn:
            for channel in delivery.channels:
                self._give(channel, delivery)

    def _give(self, channel: str, delivery: Delivery) -> None:
        receiver = self._receivers.get(channel)
        if receiver is None:
            self._stats.count("replies.unknown")
            self._unknown(channel, delivery.message)
            return
        try:
            receiver.on_reply(delivery)
        except Exception as error:
            # One client's fault must not cost the others their replies.
            self._fail(channel, error)

    def _fail(self, channel: str, error: Exception) -> None:
        self._stats.count("replies.errors")
        logger.error("%s: a reply failed", channel, exc_info=error, extra=extra("reply_failed", channel))

    # -- in the loop, without a thread between ----------------------------------------------

    def hand_out(self, entries: Sequence[Entry], bad: Callable[[ValueError], None]) -> None:
        """Take over what an envelope held; called in the event loop.

        Args:
            bad: is told of what is no packed message, which is dropped.
        """
        if self._entries:
            self._entries.extend(entries)
            return
        left = _TURN
        for number, entry in enumerate(entries):
            if left <= 0:
                self._entries.extend(entries[number:])
                self._loop.call_soon(self._hand_out_more, bad)
                return
            left -= len(entry.channels)
            self._hand_out_entry(entry, bad)

    def when_handed_out(self, then: Callable[[], None]) -> None:
        """Call ``then`` when all that :meth:`hand_out` was given has reached its clients; at once if it has."""
        if self._entries:
            self._when_handed_out = then
        else:
            then()

    def _hand_out_more(self, bad: Callable[[ValueError], None]) -> None:
        entries, self._entries = list(self._entries), deque()
        self.hand_out(entries, bad)
        if not self._entries and self._when_handed_out is not None:
            then, self._when_handed_out = self._when_handed_out, None
            then()

    def _hand_out_entry(self, entry: Entry, bad: Callable[[ValueError], None]) -> None:
        channels, packed, group = entry
        try:
            message = codec.unpack(packed)
        except ValueError as error:
            bad(error)
            return
        if len(message) == 1 and len(channels) == 1 and type(order := message.get("done")) is int:
            receiver = self._receivers.get(channels[0])
            if receiver is not None:
                try:
                    receiver.on_done(order)
                except Exception as error:
                    self._fail(channels[0], error)
                return
        delivery = Delivery(channels, message, group)
        for channel in channels:
            self._give(channel, delivery)
