"""Has every socket look, now and then, whether something of it is overdue: a few at a time, so that nobody waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Protocol

from channelsq.interface.basis.config import InterfaceConfig

#: How many look in one turn of the event loop, which takes less than a millisecond.
AT_ONCE = 200

#: Seconds between two looks of a socket, at least and at most; and seconds between two turns, at least.
SOONEST, LATEST, PAUSE = 0.25, 1.0, 0.005

#: A look comes late by this share of the shortest timeout at most.
_SHARE = 0.05


class Watched(Protocol):
    """Whoever has its turn."""

    def on_tick(self, now: float) -> object:
        """Look whether something is overdue, by the event loop's time."""


def period_of(config: InterfaceConfig) -> float:
    """How often (seconds) a socket must look, for the timeouts that there are."""
    timeouts = (
        config.accept_timeout,
        config.order_timeout,
        config.http_timeout,
        config.ping_interval or math.inf,
        config.ping_timeout or math.inf,
        config.idle_timeout or math.inf,
    )
    return min(LATEST, max(SOONEST, min(timeouts) * _SHARE))


class DeadlineTicker:
    """Goes round, for ever.

    Args:
        watched: those whose turn comes once a round; they come and go.
        period: seconds that a round takes.  With very many of them it takes longer: 200,000 look in 5 s.
        also: called with the loop's time in each turn.
    """

    def __init__(self, watched: Collection[Watched], period: float, also: Callable[[float], None]) -> None:
        self._watched = watched
        self._period = period
        self._also = also
        self._left: list[Watched] = []
        self._wait = period
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._wait, self._turn)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        now = self._loop.time()
        if not self._left:
            self._left = list(self._watched)
            self._wait = max(PAUSE, self._period / max(1, math.ceil(len(self._left) / AT_ONCE)))
        turn = self._left[-AT_ONCE:]
        del self._left[-AT_ONCE:]
        self._timer = self._loop.call_later(self._wait, self._turn)
        for each in turn:
            if each in self._watched:
                each.on_tick(now)
        self._also(now)
