"""What goes to one WebSocket client: messages, control frames, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.link.replies import Delivery

#: Bytes of messages that are collected in one turn of the event loop, before they are written.
_JOINED = 64 * 1024


class Outgoing:
    """Writes to one client.

    Args:
        hub: what all connections share.
        wire: the parser, which also makes control frames.
        transport: the client's.
        too_slow: called with the number of bytes that wait already, instead of adding to them.
    """

    __slots__ = (
        "_close_timer",
        "_context",
        "_ended",
        "_messages",
        "_size",
        "_too_slow",
        "_transport",
        "_wire",
        "turns",
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
        #: Bits of the window of compressed frames; 0 for none.
        self.window = 0
        # Frames that are written together at the end of the event loop's turn.
        self._messages: list[bytes] = []
        #: In how many turns there were some.
        self.turns = 0
        self._size = 0
        self._close_timer: asyncio.TimerHandle | None = None
        self._ended = False

    def send(self, delivery: Delivery) -> None:
        """Have a message written at the end of this turn, together with what else there is for this client."""
        frame = delivery.frame(self.window)
        messages = self._messages
        if not messages:
            self._context.replies.writers.append(self)
            self.turns += 1
        messages.append(frame)
        self._size += len(frame)
        if self._size > _JOINED:
            self.flush()

    def flush(self) -> None:
        """Write the messages that were collected, unless the client reads too slowly."""
        messages = self._messages
        if not messages:
            return
        count = len(messages)
        data = messages[0] if count == 1 else b"".join(messages)
        messages.clear()
        self._size = 0
        transport = self._transport
        if self._ended or self._wire.state is not OPEN or transport.is_closing():
            return
        waiting = transport.get_write_buffer_size()
        # One write may always go out, however large it is.
        if waiting and waiting + len(data) > self._context.config.send_queue:
            self._too_slow(waiting)
        else:
            stats = self._context.stats
            stats.sent += count
            stats.sent_bytes += len(data)
            transport.write(data)

    def write_wire(self) -> None:
        """Write what the parser has to send."""
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
        """Begin the closing handshake, behind all messages; the connection ends soon, even without an answer."""
        self.flush()
        if self._wire.state is OPEN:
            self._wire.send_close(code, reason)
            self.write_wire()
        self._expect_end()

    def fail(self, code: int, reason: str) -> None:
        """Close because of what the client sent (RFC 6455, section 7.1.7)."""
        if self._wire.state is OPEN:
            self._wire.fail(code, reason)
            self.write_wire()

    def ended(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._messages.clear()
        if self._close_timer is not None:
            self._close_timer.cancel()

    def _end_writing(self) -> None:
        """Nothing more is sent; the connection ends with the client's end, or after a while without it.

        Closing at once would answer what the client is still sending with a reset, which may overtake
        the close frame that says why.
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
