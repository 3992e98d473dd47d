"""The messages that this process has, apart from Celery's own record of tasks (:mod:`celery.worker.state`).

Celery's autoscaler counts the reserved tasks there, and Celery cancels the active ones when its broker is lost.
Neither concerns messages of a layer.  ``inspect`` shows both, see :mod:`channelsq.worker.sources.control`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from celery.worker import state

if TYPE_CHECKING:
    from channelsq.worker.sources.request import Request

#: Messages that were taken and are not handled yet, by id.
reserved: dict[str, Request] = {}

#: Those of them that wait for their time, or for a rate limit.
scheduled: dict[str, Request] = {}


def waiting() -> Iterator[Request]:
    """Return the messages that are neither handled nor scheduled yet."""
    for identity, request in tuple(reserved.items()):
        if request.time_start is None and identity not in scheduled:
            yield request


def active() -> list[Request]:
    """Return the messages whose consumers run."""
    return [request for request in tuple(reserved.values()) if request.time_start is not None]


def clear() -> None:
    """Forget every message; a worker begins in this process."""
    reserved.clear()
    scheduled.clear()


def answer(what: str) -> Any:
    """Return what this process knows: ``active``, ``reserved``, ``scheduled`` or ``counts``, as ``inspect`` has it.

    Messages are shown without their content: cookies and tokens do not belong on an operator's screen.
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
            return dict(state.total_count)
    raise ValueError(f"nothing is known of {what!r}")
