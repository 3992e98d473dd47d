"""Log lines on stderr, for commands; the library itself installs no handlers."""

from __future__ import annotations

import logging
from collections.abc import Mapping


def show(levels: Mapping[str, int]) -> None:
    """Let loggers write to stderr from these levels on, but for those that the project's LOGGING takes care of.

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
    """Whether anything comes of the logger's records; libraries such as Celery add handlers that do nothing."""
    current: logging.Logger | None = logger
    while current is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False
