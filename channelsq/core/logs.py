"""Log lines on stderr for commands (the library itself installs no handlers), and a rate limit for frequent lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping


class LogLimit:
    """A limit on how often one kind of line is logged by this process.

    Args:
        seconds: the shortest time between two lines.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._logged = float("-inf")

    def allows(self) -> bool:
        """Return whether a line may be logged now, and count it as logged if so."""
        now = time.monotonic()
        if now - self._logged < self._seconds:
            return False
        self._logged = now
        return True

    def reset(self) -> None:
        """Allow the next line; for tests."""
        self._logged = float("-inf")


def show(levels: Mapping[str, int]) -> None:
    """Let loggers write to stderr from these levels on, except loggers that the project's LOGGING handles.

    Args:
        levels: ``{logger's name: level}``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not _is_heard(logger):
            logger.addHandler(handler)


def _is_heard(logger: logging.Logger) -> bool:
    """Return whether a handler writes the logger's records; libraries such as Celery add handlers that do nothing."""
    current: logging.Logger | None = logger
    while current is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False
