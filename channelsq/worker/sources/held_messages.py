"""The messages that this process holds, apart from Celery's record of tasks (``celery.worker.state``).

Celery's autoscaler counts the reserved tasks there, and Celery cancels the active ones when its broker is lost.
Neither concerns messages of a layer.  ``inspect`` shows both, see :mod:`channelsq.worker.commands.control`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from channelsq.worker.running.celery_state_internals import total_count


class Held(Protocol):
    """The request of a message that this process holds."""

    #: The start time of its consumer; None before.
    time_start: float | None

    @property
    def eta(self) -> datetime | None:
        """The time from which it may begin; None for now."""

    def info(self, safe: bool = False) -> Mapping[str, Any]:
        """Return the message's entry for ``inspect``; with ``safe`` without its content."""


#: Messages that were received and are not handled yet, by id.
reserved: dict[str, Held] = {}

#: Reserved messages that wait for their ETA or a rate limit.
scheduled: dict[str, Held] = {}


def waiting() -> Iterator[Held]:
    """Yield the messages that are neither running nor scheduled."""
    for identity, request in tuple(reserved.items()):
        if request.time_start is None and identity not in scheduled:
            yield request


def active() -> list[Held]:
    """Return the messages whose consumers run."""
    return [request for request in tuple(reserved.values()) if request.time_start is not None]


def clear() -> None:
    """Forget every message; a worker begins in this process."""
    reserved.clear()
    scheduled.clear()


def answer(what: str) -> Any:
    """Return the process's ``active``, ``reserved`` or ``scheduled`` messages or ``counts``, for ``inspect``.

    Messages are shown without their content, as operators must not see cookies and tokens.
    """
    match what:
        case "active":
            return [request.info(safe=True) for request in active()]
        case "reserved":
            return [request.info(safe=True) for request in waiting()]
        case "scheduled":
            return [
                {"eta": request.eta and request.eta.isoformat(), "priority": 6, "request": request.info(safe=True)}
                for request in tuple(scheduled.values())
            ]
        case "counts":
            return dict(total_count)
    raise ValueError(f"nothing is known of {what!r}")
