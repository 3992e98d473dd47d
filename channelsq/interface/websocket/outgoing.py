"""The output to one WebSocket client: messages, control frames, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.link.replies import Delivery

#: Bytes of messages that are collected in one turn of the event loop before they are written.
_JOINED = 64 * 1024

#: Bytes in the transport's buffer at which it reports that it is full; below, it need not be asked.
_HIGH_WATER = 64 * 1024


class Outgoing:
    """The output to one client.

    Args:
        context: the state that all connections share.
        wire: the parser, which also creates control frames.
        transport: the client's transport.
        too_slow: called with the number of waiting bytes, instead of adding to them.
    """

    # A message to a group accesses no other object of the socket but the transport: of thousands of sockets none is in
    # the processor's cache when its turn comes.
    __slots__ = (
        "_close_timer",
        "_context",
        "_ended",
        "_frames",
        "_is_full",
        "_most_unseen",
        "_size",
        "_too_slow",
        "_transport",
        "_wire",
        "_writable",
        "flushes",
        "is_open",
        "window",
    )  # fmt: skip

    def __init__(
        self,
        context: ServerContext,
        wire: ServerProtocol,
        transport: asyncio.Transport,
        too_slow: Callable[[int], None],
    ) -> None:
        self._context = context
        self._wire = wire
        self._transport = transport
        self._too_slow = too_slow
        #: Whether text and bytes may be added: the application has accepted the socket, and nothing has closed it.
        self.is_open = False
        #: Bits of the window of compressed frames; 0 for none.
        self.window = 0
        # The frames that are written together at the end of the event loop's turn: one, or a list of several.
        self._frames: bytes | list[bytes] | None = None
        #: The number of writes for the application.
        self.flushes = 0
        self._size = 0
        self._writable = False
        # Whether the transport's buffer is over its mark; below the mark it is within the limit.
        self._is_full = False
        limit = context.config.send_queue
        high = min(_HIGH_WATER, limit // 2)
        self._most_unseen = limit - high
        transport.set_write_buffer_limits(high=high)
        self._close_timer: asyncio.TimerHandle | None = None
        self._ended = False

    def opened(self, *, is_open: bool, window: int) -> None:
        """Take messages from now on, as the handshake is answered.

        Args:
            is_open: whether the application has not closed the socket at once.
            window: see :attr:`window`.
        """
        self._writable = True
        self.is_open = is_open
        self.window = window

    def pause(self) -> None:
        """Ask the transport for its buffer's size from now on."""
        self._is_full = True

    def resume(self) -> None:
        """Stop asking the transport: its buffer is small."""
        self._is_full = False

    def send(self, delivery: Delivery) -> None:
        """Write a message at the end of this turn, together with others for this client.

        A droppable message is left out while the client does not read what was sent before.
        """
        if self._is_full and delivery.message.get("droppable"):
            self._context.stats.count("websocket.dropped")
            return
        self.add(delivery.frame(self.window))

    def add(self, frame: bytes) -> None:
        """Write a frame at the end of this turn."""
        frames = self._frames
        if frames is None:
            self._frames = frame
            self._context.replies.writers.append(self)
            return
        if isinstance(frames, bytes):
            self._size = len(frames)
            frames = self._frames = [frames]
        frames.append(frame)
        self._size += len(frame)
        if self._size > _JOINED:
            self.flush()

    def flush(self) -> None:
        """Write the collected frames, unless the client reads too slowly."""
        frames = self._frames
        if frames is None:
            return
        self._frames = None
        if isinstance(frames, bytes):
            count, data = 1, frames
        else:
            count, data = len(frames), b"".join(frames)
        transport = self._transport
        if not self._writable or transport.is_closing():
            return
        self.flushes += 1
        size = len(data)
        if self._is_full or size > self._most_unseen:
            waiting = transport.get_write_buffer_size()
            # One write may always go out, of any size.
            if waiting and waiting + size > self._context.config.send_queue:
                self._too_slow(waiting)
                return
        stats = self._context.stats
        stats.sent += count
        stats.sent_bytes += size
        transport.write(data)

    def write_wire(self) -> None:
        """Write the parser's output; after a close frame nothing is written for the application any more."""
        self._writable = self._wire.state is OPEN
        for data in self._wire.data_to_send():
            if self._ended:
                return
            if data:
                self._context.stats.sent_bytes += len(data)
                self._transport.write(data)
                waiting = self._transport.get_write_buffer_size()
                if waiting > self._context.config.send_queue and self._wire.state is OPEN:
                    self._too_slow(waiting)  # it asks for pongs and does not read them
                    return
            else:
                self._end_writing()

    # -- the end ----------------------------------------------------------------------------

    def begin_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake after all messages; the connection ends soon, even without an answer."""
        self.flush()
        if self._wire.state is OPEN:
            self._wire.send_close(code, reason)
            self.write_wire()
        self._expect_end()

    def fail(self, code: int, reason: str) -> None:
        """Close because of an error of the client (RFC 6455, section 7.1.7)."""
        if self._wire.state is OPEN:
            self._wire.fail(code, reason)
            self.write_wire()

    def ended(self) -> None:
        """Stop, as the connection is gone."""
        self._ended = True
        self._writable = self.is_open = False
        self._frames = None
        if self._close_timer is not None:
            self._close_timer.cancel()

    def _end_writing(self) -> None:
        """End the output; the connection ends when the client closes it, or after a while.

        If the server closed it at once, the system would answer further bytes of the client with a reset, which may
        overtake the close frame with the reason.
        """
        self._expect_end()
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _expect_end(self) -> None:
        if self._close_timer is None and not self._ended:
            self._close_timer = self._context.loop.call_later(self._context.limits.close_timeout, self._transport.abort)
