"""Detection of clients that have left among those that have closed their sending side of the connection.

Both look alike (TCP's FIN).  They differ after a write: the system of a client that has left answers with a reset.  So
the server sends a few bytes of the response ahead: letters of ``HTTP/1.1``, with which every response begins, or
leading zeros of the next chunk's size, which change nothing (RFC 9112, section 7.1).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any, cast

from channelsq.interface.http.uvicorn_http_internals import RequestResponseCycle

#: The beginning of every response.
_BEGINNING = b"HTTP/1.1 "

#: The largest number of zeros before a chunk's size: parsers accept 16 digits.
_ZEROS = 6

#: Seconds until the check for a reset after such a byte, and the longest time between two checks otherwise.
_SOON, _LATER = 0.1, 1.0


class Ahead:
    """A transport that may have sent the first bytes of the next write ahead.

    Args:
        transport: the client's transport.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._letters = self._zeros = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write the part of ``data`` that has not been sent."""
        if data:
            data, self._letters, self._zeros = data[self._letters :], 0, 0
            self._transport.write(data)

    def send_ahead(self, cycle: RequestResponseCycle) -> None:
        """Send one more byte of the next write, if the byte is known."""
        if not cycle.response_started:
            if self._letters < len(_BEGINNING):
                self._transport.write(_BEGINNING[self._letters : self._letters + 1])
                self._letters += 1
        elif cycle.chunked_encoding and not cycle.response_complete and self._zeros < _ZEROS:
            self._transport.write(b"0")
            self._zeros += 1


class HalfClosed:
    """A watch over a client that has closed its sending side: it drops the connection if the client has left.

    Args:
        transport: the client's transport.
        active: returns the request that is answered now.
        loop: the event loop.
        wait: seconds until the first byte is sent ahead; they double with each byte.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        active: Callable[[], RequestResponseCycle],
        loop: asyncio.AbstractEventLoop,
        wait: float,
    ) -> None:
        self._active = active
        self._loop = loop
        self._plain = transport
        ahead = Ahead(transport)
        self._ahead = ahead
        #: The transport to which responses are written.
        self.transport = cast(asyncio.Transport, ahead)
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._wait = wait
        self._due = loop.time() + wait
        self._timer = loop.call_later(wait, self._look)

    def ended(self) -> None:
        """Stop, as the connection is gone."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._plain.is_closing():
            return
        if self._has_left():
            self._plain.abort()
            return
        now, wait = self._loop.time(), _SOON
        if now >= self._due:
            self._ahead.send_ahead(self._active())
            self._wait *= 2
            self._due = now + self._wait
        else:
            wait = min(_LATER, self._due - now)
        self._timer = self._loop.call_later(wait, self._look)

    def _has_left(self) -> bool:
        """Return whether the connection has ended in both directions, or failed."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return bool(poll.poll(0))
