"""When a WebSocket counts as idle: no message went either way for a while, and none is being handled."""

from __future__ import annotations


class Idle:
    """The idleness of one connection; times are those of one monotonic clock, in seconds.

    Args:
        timeout: how long it may last.
    """

    __slots__ = ("_seen", "_since", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since = 0.0
        self._seen: tuple[int, int] | None = None

    def is_over(self, now: float, received: int, sent: int, *, busy: bool) -> bool:
        """Whether it has lasted too long.

        Args:
            received, sent: numbers that grow with what was received and sent.
            busy: whether a message waits for a worker, or is with one.
        """
        if busy or self._seen != (received, sent):
            self._seen = received, sent
            self._since = now
        return now - self._since >= self._timeout
