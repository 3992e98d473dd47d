"""Pings: when one is due, and when a client that does not answer is lost.  No I/O (RFC 6455, section 5.5.2).

A client that is silent after a ping is lost.  Signs of life are whole messages, pings and pongs, and a good part of a
message; bytes that are dripped, and fragments without content, are none.
"""

from __future__ import annotations

import math
import secrets


class KeepAlive:
    """The state of one connection's pings; times are those of one monotonic clock, in seconds.

    Args:
        interval: between pings; 0 for none.
        timeout: how long the client may stay silent after one; 0 for ever.
        lively: bytes of a message that has not come whole that count as a sign of life.
    """

    __slots__ = ("_floods", "_heard", "_interval", "_life", "_life_held", "_lively", "_looked", "_next", "_timeout",
                 "_unread", "_waiting", "signs")  # fmt: skip

    def __init__(self, interval: float, timeout: float, lively: int) -> None:
        self._interval = interval
        self._timeout = timeout
        self._lively = lively
        #: How many messages, pings and pongs have come; the caller counts the first two.
        self.signs = 0
        # The signs of life, at the last look and the last time that the client had sent too much.
        self._life = self._life_held = (0, 0)
        self._floods = False
        self._heard = self._looked = 0.0
        # For how long of its silence it was not read.
        self._unread = 0.0
        self._next = math.inf
        self._waiting: tuple[bytes, float] | None = None

    def start(self, now: float) -> None:
        """The connection is open: the first ping is due an interval from now."""
        self._heard = self._looked = now
        if self._interval:
            self._next = now + self._interval

    def held(self, unfinished: int) -> None:
        """Note that the client sent too much at once; see :meth:`look`."""
        life = self._life_of(unfinished)
        self._floods, self._life_held = life == self._life_held, life

    def look(self, now: float, unfinished: int, *, read: bool, held: bool) -> None:
        """Look whether there was a sign of life since the last look.

        Args:
            now: the time.
            unfinished: bytes that have come of messages that are not whole.
            read: whether the client is being read; else its silence may be the server's.
            held: whether it is not read because it sent too much.
        """
        life = self._life_of(unfinished)
        if life != self._life:
            self._life, self._heard, self._unread = life, now, 0.0
        elif not read and not (held and self._floods):  # a flood in which there was no life excuses nothing
            self._unread += now - self._looked
        self._looked = now

    def _life_of(self, unfinished: int) -> tuple[int, int]:
        return self.signs, unfinished // self._lively

    def pong(self, data: bytes) -> None:
        """A pong came; one that answers no ping of ours is a sign of life, too."""
        self.signs += 1
        if self._waiting is not None and data == self._waiting[0]:
            self._waiting = None

    def is_lost(self, now: float) -> bool:
        """Whether a ping has gone unanswered for too long, and nothing else came either."""
        return (
            self._waiting is not None
            and self._timeout > 0
            and now - max(self._heard, self._waiting[1]) - self._unread >= self._timeout
        )

    def ping(self, now: float) -> bytes | None:
        """The payload of the ping to send now; None if none is due, or one still waits for its answer."""
        if now < self._next or (self._waiting is not None and self._timeout > 0):
            return None
        data = secrets.token_bytes(4)
        self._waiting = data, now
        self._unread = 0.0
        self._next = now + self._interval
        return data
