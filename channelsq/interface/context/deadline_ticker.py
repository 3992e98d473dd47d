"""A ticker that checks every socket for overdue deadlines, a few sockets at a time, so that no other task waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Protocol

from channelsq.interface.basis.config import InterfaceConfig

#: Sockets that are checked in one turn of the event loop, which takes less than a millisecond.
AT_ONCE = 200

#: Bounds of the seconds between two checks of a socket, and the least seconds between two turns.
SOONEST, LATEST, PAUSE = 0.25, 1.0, 0.005

#: A check is late by at most this share of the shortest timeout.
_SHARE = 0.05


class Watched(Protocol):
    """An object that the ticker calls."""

    def on_tick(self, now: float) -> object:
        """Check for overdue deadlines, by the event loop's time."""


def period_of(config: InterfaceConfig) -> float:
    """Return the seconds between two checks of a socket, for the configured timeouts."""
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
    """A ticker that runs until it is stopped.

    Args:
        watched: the objects to call once a round; the set may change.
        period: seconds that a round takes.  Very many objects take longer: 5 s for 200,000.
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
        """Start, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._wait, self._tick)

    def stop(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        if not self._left:
            self._left = list(self._watched)
            self._wait = max(PAUSE, self._period / max(1, math.ceil(len(self._left) / AT_ONCE)))
        batch = self._left[-AT_ONCE:]
        del self._left[-AT_ONCE:]
        self._timer = self._loop.call_later(self._wait, self._tick)
        for each in batch:
            if each in self._watched:
                each.on_tick(now)
        self._also(now)
