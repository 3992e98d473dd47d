"""Pings: their times, and the detection of a client that does not answer.  No I/O (RFC 6455, section 5.5.2).

A client that is silent after a ping is lost.  Signs of life are whole messages, pings, pongs, and a large part of a
message; single bytes and fragments without content are not.
"""

from __future__ import annotations

import math
import secrets


class KeepAlive:
    """The state of one connection's pings; times are those of one monotonic clock, in seconds.

    Args:
        interval: between pings; 0 for none.
        timeout: how long the client may stay silent after a ping; 0 for no limit.
        lively: bytes of an incomplete message that count as a sign of life.
    """

    __slots__ = ("_floods", "_heard", "_interval", "_life", "_life_held", "_lively", "_looked", "_next", "_timeout",
                 "_unread", "_waiting", "signs")  # fmt: skip

    def __init__(self, interval: float, timeout: float, lively: int) -> None:
        self._interval = interval
        self._timeout = timeout
        self._lively = lively
        #: The number of messages, pings and pongs; the caller counts the first two.
        self.signs = 0
        # The signs of life at the last check, and at the last time that the client had sent too much.
        self._life = self._life_held = (0, 0)
        self._floods = False
        self._heard = self._looked = 0.0
        # The seconds of its silence in which the server did not read it.
        self._unread = 0.0
        self._next = math.inf
        self._waiting: tuple[bytes, float] | None = None

    def start(self, now: float) -> None:
        """Start with an open connection: the first ping is due an interval from now."""
        self._heard = self._looked = now
        if self._interval:
            self._next = now + self._interval

    def held(self, unfinished: int) -> None:
        """Record that the client sent too much at once; see :meth:`look`."""
        life = self._life_of(unfinished)
        self._floods, self._life_held = life == self._life_held, life

    def look(self, now: float, unfinished: int, *, read: bool, held: bool) -> None:
        """Check for a sign of life since the last check.

        Args:
            now: the time.
            unfinished: received bytes of incomplete messages.
            read: whether the server reads the client; otherwise the silence may be the server's.
            held: whether the server does not read it because it sent too much.
        """
        life = self._life_of(unfinished)
        if life != self._life:
            self._life, self._heard, self._unread = life, now, 0.0
        elif not read and not (held and self._floods):  # a flood without a sign of life excuses nothing
            self._unread += now - self._looked
        self._looked = now

    def _life_of(self, unfinished: int) -> tuple[int, int]:
        return self.signs, unfinished // self._lively

    def pong(self, data: bytes) -> None:
        """Record a pong; a pong without a ping of the server is a sign of life, too."""
        self.signs += 1
        if self._waiting is not None and data == self._waiting[0]:
            self._waiting = None

    def is_lost(self, now: float) -> bool:
        """Return whether a ping has gone unanswered for too long, without any sign of life."""
        return (
            self._waiting is not None
            and self._timeout > 0
            and now - max(self._heard, self._waiting[1]) - self._unread >= self._timeout
        )

    def ping(self, now: float) -> bytes | None:
        """Return the payload of the ping to send now; None if none is due, or one still waits for its answer."""
        if now < self._next or (self._waiting is not None and self._timeout > 0):
            return None
        data = secrets.token_bytes(4)
        self._waiting = data, now
        self._unread = 0.0
        self._next = now + self._interval
        return data
