"""Idle WebSockets: no message went either way for a while, and no worker handles one."""

from __future__ import annotations


class Idle:
    """The idleness of one connection; times are those of one monotonic clock, in seconds.

    Args:
        timeout: its longest duration.
    """

    __slots__ = ("_seen", "_since", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since = 0.0
        self._seen: tuple[int, int] | None = None

    def is_over(self, now: float, received: int, sent: int, *, busy: bool) -> bool:
        """Return whether the connection was idle for too long.

        Args:
            received, sent: numbers that grow with received and sent messages.
            busy: whether a message waits for a worker, or a worker handles one.
        """
        if busy or self._seen != (received, sent):
            self._seen = received, sent
            self._since = now
        return now - self._since >= self._timeout
