"""The rate limit of one WebSocket: a client over the limit is not read for a while, which loses nothing."""

from __future__ import annotations

import asyncio
from typing import Protocol

from channelsq.interface.context.server_context import ServerContext

#: The cost of a control frame or an empty fragment, in frames: they cost as much to read, and clients need few.
DEAR = 10

#: The value of a missing limit.
_NONE = 1e18

#: The least seconds for which a socket is held, so that timers are few.
_SOME = 0.1

#: Bounds of the bytes that are parsed at a time; and the size of a client's smallest frame.
_SMALL, _LARGE, _FRAME = 128, 4096, 6


class Client(Protocol):
    """The owner of the socket."""

    def on_held(self) -> None:
        """Stop reading the socket, as the client sends too much at once."""

    def on_free(self) -> None:
        """Continue reading the socket."""


def throttle_of(context: ServerContext, client: Client) -> Throttle | None:
    """Return the throttle of a new socket; None without limits."""
    frames, size = context.config.max_message_rate, context.config.max_byte_rate
    return Throttle(context.loop, frames, size, client) if frames or size else None


class Throttle:
    """Two token buckets, of frames and of bytes, which hold the allowance of a second.

    The clock is read only when a bucket is empty, so a burst may take the allowance of two seconds.

    Args:
        loop: the event loop.
        frames, size: the allowance of a second; 0 for no limit.
        client: is told when to stop and to continue reading its socket.
    """

    __slots__ = ("_bytes", "_client", "_frames", "_last", "_loop", "_max_bytes", "_max_frames", "_timer", "held")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        frames: int,
        size: int,
        client: Client,
    ) -> None:
        self._loop = loop
        self._frames = self._max_frames = float(frames) or _NONE
        self._bytes = self._max_bytes = float(size) or _NONE
        self._client = client
        self._last = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the socket must not be read.
        self.held = False

    def took(self, frames: int, size: int) -> None:
        """Count frames and bytes that were read."""
        self._frames -= frames
        self._bytes -= size
        if (self._frames < 0 or self._bytes < 0) and not self.held:
            self._look()

    @property
    def piece(self) -> int:
        """Return the number of bytes to parse before the next check: few, if few more frames are allowed."""
        return int(min(_LARGE, max(_SMALL, self._frames / DEAR * _FRAME)))

    def ended(self) -> None:
        """Stop, as the socket is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        passed, self._last = now - self._last, now
        self._frames = min(self._max_frames, self._frames + passed * self._max_frames)
        self._bytes = min(self._max_bytes, self._bytes + passed * self._max_bytes)
        if self._frames < 0 or self._bytes < 0:
            self.held = True
            owed = max(-self._frames / self._max_frames, -self._bytes / self._max_bytes)
            self._timer = self._loop.call_later(owed + _SOME, self._go_on)
            self._client.on_held()

    def _go_on(self) -> None:
        self._timer = None
        self.held = False
        self._client.on_free()
