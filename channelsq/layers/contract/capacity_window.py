"""The capacity window: the number of messages that may be sent before the broker is asked for the size.  No I/O."""

from __future__ import annotations

#: Seconds for which the broker's last answer, less the messages sent since, is used as a channel's free capacity.
TRUSTED = 0.1


class CapacityWindow:
    """The free capacity of one channel, as far as this process knows.

    The broker is asked for a channel's size when the last answer is used up or old.  With one producer a channel never
    holds more than its capacity; several can together exceed it by what they send within :data:`TRUSTED` seconds.

    Args:
        capacity: the most messages that the channel holds.
    """

    __slots__ = ("_asked", "capacity", "left")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        #: How many messages may still be sent without asking the broker.
        self.left = 0
        self._asked = float("-inf")

    def is_fresh(self, now: float) -> bool:
        """Return whether :attr:`left` is recent enough to be used."""
        return now - self._asked < TRUSTED

    def open(self, size: int, now: float) -> None:
        """Record that the channel held ``size`` messages at the time ``now``."""
        self.left = self.capacity - size
        self._asked = now

    def close(self) -> None:
        """Invalidate the window."""
        self.left = 0
        self._asked = float("-inf")
