"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, timeout: float = 10.0, interval: float = 0.02) -> T:
    """Poll ``condition`` until it gives something true; gives that.

    Args:
        condition: asked again every ``interval`` seconds.
        what: what is awaited, for the error.
        timeout: seconds.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"after {timeout:g} s still not: {what}")
        pause.wait(interval)
