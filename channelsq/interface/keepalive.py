"""Pings: when one is due, and when a client that does not answer is lost.  No I/O (RFC 6455, section 5.5.2)."""

from __future__ import annotations

import math
import secrets


class KeepAlive:
    """The state of one connection's pings; times are those of one monotonic clock, in seconds.

    Args:
        interval: between pings; 0 for none.
        timeout: how long the client may stay silent after one; 0 for ever.
    """

    def __init__(self, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._heard = 0.0
        self._next = math.inf
        self._waiting: tuple[bytes, float] | None = None

    def start(self, now: float) -> None:
        """The connection is open: the first ping is due an interval from now."""
        self._heard = now
        if self._interval:
            self._next = now + self._interval

    def heard(self, now: float) -> None:
        """Something came from the client, so it is not lost."""
        self._heard = now

    def pong(self, data: bytes) -> None:
        """A pong came; one that answers no ping of ours means nothing."""
        if self._waiting is not None and data == self._waiting[0]:
            self._waiting = None

    def is_lost(self, now: float) -> bool:
        """Whether a ping has gone unanswered for too long, and nothing else came either."""
        return (
            self._waiting is not None
            and self._timeout > 0
            and now - max(self._heard, self._waiting[1]) >= self._timeout
        )

    def ping(self, now: float) -> bytes | None:
        """The payload of the ping to send now; None if none is due, or one still waits for its answer."""
        if now < self._next or (self._waiting is not None and self._timeout > 0):
            return None
        data = secrets.token_bytes(4)
        self._waiting = data, now
        self._next = now + self._interval
        return data
