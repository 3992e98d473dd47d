"""The clock that all processes of a site share, although the clocks of their machines differ."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("channelsq.layers.clock")

#: Seconds for which a reading of the server's clock is used; this machine's own clock continues from there.
_TRUSTED = 30.0

#: The most seconds that a reading may take to be precise enough.
_PROMPT = 1.0

#: Seconds of difference between the clocks above which it is logged.
_LOG_ABOVE = 5.0


class Clock:
    """A Redis server's clock, or this machine's while the server's is unknown.

    Args:
        ask: reads the server's clock, in seconds since 1970; None without a server.
        server: the server's name in the log.
    """

    def __init__(self, ask: Callable[[], float] | None = None, server: str = "") -> None:
        self._ask = ask
        self._server = server
        self._lock = threading.Lock()
        #: Seconds by which the server's clock is ahead of the monotonic clock.
        self._ahead: float | None = None
        self._due = float("-inf")
        self._logged_skew = 0.0

    def now(self) -> float:
        """Return the seconds since 1970."""
        if self._ask is None:
            return time.time()
        now = time.monotonic()
        if now >= self._due and self._lock.acquire(blocking=False):
            try:
                self._due = now + _TRUSTED  # also if the reading fails
                self._look(self._ask)
            finally:
                self._lock.release()
        ahead = self._ahead
        return time.time() if ahead is None else time.monotonic() + ahead

    def _look(self, ask: Callable[[], float]) -> None:
        began = time.monotonic()
        try:
            asked = ask()
        except Exception:  # the server is away: calls that need it for more than the time report this
            return
        ended, local = time.monotonic(), time.time()
        if ended - began > _PROMPT and self._ahead is not None:
            return
        server = asked + (ended - began) / 2
        self._ahead = server - ended
        wrong = local - server
        if abs(wrong) > _LOG_ABOVE and abs(wrong - self._logged_skew) > _LOG_ABOVE:
            logger.warning(
                "the clock of this machine is %.0f s %s that of %s: set one of them right (NTP). Messages and "
                "memberships expire by the server's clock; delays, and Kombu's visibility_timeout, do not",
                abs(wrong),
                "ahead of" if wrong > 0 else "behind",
                self._server,
                extra={"action": "clock_skew"},
            )
        self._logged_skew = wrong
