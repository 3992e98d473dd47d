"""The capacity window: how many messages may be sent to a channel before its size is asked for again.  No I/O."""

from __future__ import annotations

#: Seconds for which a channel's size is taken to be what the broker last said, less what was sent since.
TRUSTED = 0.1


class CapacityWindow:
    """The room in one channel, as far as this process knows.

    The broker is asked for a channel's size when the last answer is used up or old.  With one producer a channel never
    holds more than its capacity; several can pass it together by what they send within :data:`TRUSTED` seconds.

    Args:
        capacity: how many messages the channel holds.
    """

    __slots__ = ("_asked", "capacity", "left")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        #: How many messages may still be sent without asking.
        self.left = 0
        self._asked = float("-inf")

    def is_fresh(self, now: float) -> bool:
        """Return whether :attr:`left` can be relied on."""
        return now - self._asked < TRUSTED

    def open(self, size: int, now: float) -> None:
        """Note that the channel held ``size`` messages at the time ``now``."""
        self.left = self.capacity - size
        self._asked = now

    def close(self) -> None:
        """Rely on nothing any more."""
        self.left = 0
        self._asked = float("-inf")
