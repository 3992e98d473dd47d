"""From the channel layer to the clients: replies come in, in threads or in the loop, and go to sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from channelsq.core.logs import LogLimit
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.deflate import compressed_frame
from channelsq.interface.basis.frames import BYTES, TEXT, frame
from channelsq.interface.basis.log_fields import extra
from channelsq.layers.wire import codec

logger = logging.getLogger("channelsq.interface.replies")

#: What an envelope holds for one send: channels, the packed message, and the group that it was sent to or None.  There
#: may be a fourth: the order of the one channel's message that is reported done behind this one, or None.  What stands
#: behind these is ignored.
Entry = Sequence[Any]

_STR = {str}

#: How many deliveries one turn of the event loop handles, so that sockets are read in between.
_MOST_AT_ONCE = 1000


class Delivery:
    """A message for one or many clients; its WebSocket frame is made once for all of them."""

    __slots__ = ("_frame", "_frames", "_size", "channels", "group", "is_plain", "message")

    def __init__(self, channels: Sequence[str], message: dict[str, Any], group: str | None = None) -> None:
        self.channels = channels
        self.message = message
        #: The group that it was sent to; None if it was sent to the client itself.
        self.group = group
        #: Whether it is a text or bytes to be sent to open sockets, and nothing else.
        self.is_plain = len(message) == 1 and (type(message.get("text")) is str or type(message.get("bytes")) is bytes)
        self._size = 0
        self._frame: bytes | None = None
        # Compressed, by the size of the window.
        self._frames: dict[int, bytes] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        if not self._size:
            self._size = 100 + sum(
                len(value)
                for key in ("text", "bytes", "content")
                if isinstance(value := self.message.get(key), (str, bytes))
            )
        return self._size

    def _payload(self) -> tuple[int, bytes]:
        text = self.message.get("text")
        return (BYTES, self.message["bytes"]) if text is None else (TEXT, text.encode("utf-8", "replace"))

    def frame(self, window: int = 0) -> bytes:
        """Return the frame of the message's ``text`` or ``bytes``.

        Args:
            window: the bits of the window that compression was negotiated with; 0 for none.
        """
        if not window:
            made = self._frame
            if made is None:
                first, payload = self._payload()
                made = self._frame = frame(first, payload)
            return made
        frames = self._frames
        if frames is None:
            frames = self._frames = {}
        if window not in frames:
            frames[window] = compressed_frame(*self._payload(), window)
        return frames[window]


class Receiver(Protocol):
    """A client that receives replies."""

    def on_reply(self, delivery: Delivery) -> None:
        """Handle a reply; called in the event loop."""

    def on_done(self, order: int) -> None:
        """Handle the report that the application is done with a message; called in the event loop."""


class Writer(Protocol):
    """A client that collects what it writes in one turn."""

    def flush(self) -> None:
        """Write what was collected."""


class Outlet(Writer, Protocol):
    """The receiver of text and bytes for one client, which needs no other part of such messages."""

    #: Whether it takes them now; the client itself gets the message if not.
    is_open: bool
    #: Bits of the window of compressed frames; 0 for none.
    window: int

    def add(self, frame: bytes) -> None:
        """Have a frame written at the end of the event loop's turn."""


class Replies:
    """Hands replies to their clients.

    Args:
        loop: the event loop that the clients live in.
        stats: where unknown clients and lost replies are counted.
        unknown: called in the loop with a channel that has no receiver here, and what was for it.
        limit: how many bytes of replies may wait for the loop.
        patience: how long (seconds) a full hand-over holds up the layer's thread before it loses a reply.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stats: Counters,
        unknown: Callable[[str, Delivery], None],
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
        self._outlets: dict[str, Outlet] = {}
        self._waiting: deque[Delivery] = deque()
        self._size = 0
        self._scheduled = False
        self._room = threading.Condition()
        self._losses = LogLimit()
        #: What :meth:`hand_out` was given and the loop has had no turn for yet.
        self._entries: deque[Entry] = deque()
        #: Clients that have something to write at the end of this turn; they add themselves.
        self.writers: list[Writer] = []
        self._when_handed_out: Callable[[], None] | None = None

    def register(self, channel: str, receiver: Receiver) -> None:
        """From now on ``receiver`` gets what is sent to ``channel``."""
        self._receivers[channel] = receiver

    def register_outlet(self, channel: str, outlet: Outlet) -> None:
        """Have text and bytes that are sent to ``channel`` go to ``outlet``, while that is open."""
        self._outlets[channel] = outlet

    def unregister(self, channel: str) -> None:
        """Remove the receiver of ``channel``."""
        self._receivers.pop(channel, None)
        self._outlets.pop(channel, None)

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
        if self._losses.allows():
            logger.error(
                "a reply was dropped: more than %d bytes of replies wait for this process (%d dropped so far)",
                self._limit,
                self._stats["replies.lost"],
                extra=extra("reply_lost", delivery.channels[0] if delivery.channels else ""),
            )

    def _hand_out(self) -> None:
        with self._room:
            batch = [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]
            self._size -= sum(delivery.size for delivery in batch)
            self._scheduled = bool(self._waiting)
            if self._scheduled:
                self._loop.call_soon(self._hand_out)
            self._room.notify_all()
        for delivery in batch:
            for channel in delivery.channels:
                self._give(channel, delivery)
        self._flush()

    def _flush(self) -> None:
        writers, self.writers = self.writers, []
        for writer in writers:
            try:
                writer.flush()
            except Exception as error:
                self._fail("", error)

    def _give_all(self, channels: list[str], delivery: Delivery) -> None:
        """Give a delivery to each of ``channels``; text and bytes go to the clients' outlets."""
        if not delivery.is_plain:
            for channel in channels:
                self._give(channel, delivery)
            return
        outlets, frame = self._outlets, delivery.frame()
        for channel in channels:
            outlet = outlets.get(channel)
            if outlet is None or not outlet.is_open:
                self._give(channel, delivery)
                continue
            try:
                outlet.add(frame if not outlet.window else delivery.frame(outlet.window))
            except Exception as error:
                self._fail(channel, error)

    def _give(self, channel: str, delivery: Delivery) -> None:
        receiver = self._receivers.get(channel)
        if receiver is None:
            self._stats.count("replies.unknown")
            self._unknown(channel, delivery)
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

    def hand_out(self, entries: Iterable[Entry], bad: Callable[[str], None]) -> None:
        """Take over what envelopes held; called in the event loop.

        Args:
            entries: each an :data:`Entry`, if they are channelsq's.
            bad: is told what is wrong with an entry that is dropped.
        """
        if self._entries:
            self._entries.extend(entries)
            return
        left = _MOST_AT_ONCE
        rest = iter(entries)
        for entry in rest:
            left -= self._hand_out_entry(entry, bad)
            if left <= 0:
                self._entries.extend(rest)
                if self._entries:
                    self._loop.call_soon(self._hand_out_more, bad)
        self._flush()

    def when_handed_out(self, then: Callable[[], None]) -> None:
        """Call ``then`` when all that :meth:`hand_out` was given has reached its clients; at once if it has."""
        if self._entries:
            self._when_handed_out = then
        else:
            then()

    def _hand_out_more(self, bad: Callable[[str], None]) -> None:
        entries, self._entries = self._entries, deque()
        self.hand_out(entries, bad)
        if not self._entries and self._when_handed_out is not None:
            then, self._when_handed_out = self._when_handed_out, None
            then()

    def _hand_out_entry(self, entry: Entry, bad: Callable[[str], None]) -> int:
        """Hand out one entry, and return the number of deliveries."""
        try:
            length = len(entry)
            if length == 4:
                channels, packed, group, order = entry
            elif length == 3:
                channels, packed, group = entry
                order = None
            else:  # with fields of a newer process
                channels, packed, group, order = entry[:4]
            message = codec.unpack(packed)
            if type(channels) is not list or not (
                type(channels[0]) is str if len(channels) == 1 else _STR.issuperset(map(type, channels))
            ):
                raise ValueError(f"its channels are {channels!r:.80}")
            if group is not None and type(group) is not str:
                raise ValueError(f"its group is {group!r:.80}")
            if order is not None and (type(order) is not int or len(channels) != 1):
                raise ValueError(f"its order is {order!r:.80}, for {len(channels)} channels")
        except (TypeError, ValueError) as error:
            bad(str(error))
            return 1
        if len(channels) != 1:
            self._give_all(channels, Delivery(channels, message, group))
            return len(channels)
        channel = channels[0]
        if len(message) == 1 and type(done := message.get("done")) is int:
            self._report(channel, done)
        else:
            self._give(channel, Delivery(channels, message, group))
        if order is None:
            return 1
        self._report(channel, order)
        return 2

    def note_foreign(self) -> None:
        """Count a message on a reply queue that channelsq did not write; called in the event loop."""
        self._stats.count("replies.foreign")

    def _report(self, channel: str, order: int) -> None:
        receiver = self._receivers.get(channel)
        if receiver is None:
            return
        try:
            receiver.on_done(order)
        except Exception as error:
            self._fail(channel, error)
