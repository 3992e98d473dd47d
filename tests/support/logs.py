"""The fields of channelsq's log lines, which no type knows of a record."""

from __future__ import annotations

from logging import LogRecord


def action_of(record: LogRecord) -> str:
    """Return the word for what happened."""
    return str(record.__dict__["action"])


def connection_of(record: LogRecord) -> str:
    """Return the reply channel of the socket or request."""
    return str(record.__dict__["connection"])
