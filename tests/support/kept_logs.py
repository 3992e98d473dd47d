"""The lines of a logger, from any thread, kept for a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Keeper(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextmanager
def kept(name: str, level: int = logging.INFO) -> Iterator[list[logging.LogRecord]]:
    """The records of a logger and those below it, from ``level`` on."""
    logger = logging.getLogger(name)
    records: list[logging.LogRecord] = []
    keeper, before = _Keeper(records), logger.level
    logger.setLevel(level)
    logger.addHandler(keeper)
    try:
        yield records
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(before)
