"""Clocks and event loops whose time a test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class FakeClock:
    """A clock to be called, as ``time.monotonic``."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class FakeLoop:
    """An event loop's clock and timers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        #: How often it was asked for the time.
        self.looked = 0

    def time(self) -> float:
        self.looked += 1
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        timer = (self.now + seconds, callback)
        self.timers.append(timer)
        return type("Handle", (), {"cancel": lambda _: self.timers.remove(timer)})()

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        """Call it at once."""
        callback(*args)

    def run_timer(self) -> None:
        """Go on to the only timer, and run it."""
        ((self.now, callback),) = self.timers
        self.timers.clear()
        callback()
