"""How much one WebSocket may send in a second: over that it is not read for a while, which loses nothing."""

from __future__ import annotations

import asyncio
from typing import Protocol

from channelsq.interface.context.server_context import ServerContext

#: What a control frame or an empty fragment counts for, in frames: they cost as much to read, and nobody needs many.
DEAR = 10

#: For a limit that there is not.
_NONE = 1e18

#: Seconds for which a socket is held at least, so that timers are few.
_SOME = 0.1

#: Bytes that are parsed at a time, at least and at most; and the smallest frame of a client, for which they may be.
_SMALL, _LARGE, _FRAME = 128, 4096, 6


class Client(Protocol):
    """Whose socket it is."""

    def on_held(self) -> None:
        """It sends too much at once, and is to be read no more."""

    def on_free(self) -> None:
        """It may be read again."""


def throttle_of(context: ServerContext, client: Client) -> Throttle | None:
    """The throttle of a new socket; None if there are no limits."""
    frames, size = context.config.max_message_rate, context.config.max_byte_rate
    return Throttle(context.loop, frames, size, client) if frames or size else None


class Throttle:
    """Two token buckets, of frames and of bytes, which hold what is allowed in a second.

    The clock is looked at only when one of them is empty, so a burst may take what two seconds allow.

    Args:
        loop: the event loop.
        frames, size: what is allowed in a second; 0 for no limit.
        client: is told when its socket is to be read no more, and when again.
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
        #: Whether the socket is not to be read.
        self.held = False

    def took(self, frames: int, size: int) -> None:
        """So much was read."""
        self._frames -= frames
        self._bytes -= size
        if (self._frames < 0 or self._bytes < 0) and not self.held:
            self._look()

    @property
    def piece(self) -> int:
        """How many bytes to parse before the next look: few, if few more frames are allowed."""
        return int(min(_LARGE, max(_SMALL, self._frames / DEAR * _FRAME)))

    def ended(self) -> None:
        """The socket is gone."""
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
