"""The capacity windows of a process: whether another message may be sent without asking the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from channelsq.exceptions import ChannelFull
from channelsq.layers.contract.capacity_window import CapacityWindow

#: The most queues of which a process keeps a record.
MOST_QUEUES = 10_000


class CapacityWindows:
    """The capacity windows of this process, by queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, CapacityWindow] = {}

    def forget(self) -> None:
        """Drop all windows, so that the broker is asked again."""
        with self._lock:
            self._windows.clear()

    def admit(self, name: str, capacity: int, depth: Callable[[], int], channel: str | None = None) -> None:
        """Raise ChannelFull if the queue is at its capacity, see :mod:`channelsq.layers.contract.capacity_window`.

        Args:
            name: the queue.
            capacity: the most messages that it may hold.
            depth: asks the broker how many it holds.
            channel: the channel's name for errors; ``name`` if left out.
        """
        if self.take(name):
            return
        now = time.monotonic()
        window = CapacityWindow(capacity)
        window.open(depth(), now)
        if window.left <= 0:
            raise ChannelFull(channel or name, capacity)
        window.left -= 1
        with self._lock:
            if len(self._windows) > MOST_QUEUES:
                self._windows.clear()
            self._windows[name] = window

    def take(self, name: str) -> bool:
        """Reserve space for one message; return False if the broker must be asked first."""
        with self._lock:
            window = self._windows.get(name)
            if window is None or window.left <= 0 or not window.is_fresh(time.monotonic()):
                return False
            window.left -= 1
            return True
