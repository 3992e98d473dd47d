"""Which messages a worker has: apart from Celery's own books of tasks.

Celery's autoscaler counts what is reserved there, and Celery cancels what is active there when its broker is lost.
Neither concerns messages of a layer.  ``inspect`` shows both, see :mod:`channelsq.worker.sources.control`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channelsq.worker.sources.request import Request

#: Messages that were taken and are not handled yet, by id.
reserved: dict[str, Request] = {}

#: Those of them whose consumers run.
active: dict[str, Request] = {}

#: Those of them that wait for their time, or for a rate limit.
scheduled: dict[str, Request] = {}


def find(identity: str) -> Request | None:
    """Return the message with an id that this process has, if it has it."""
    return reserved.get(identity)


def waiting() -> Iterator[Request]:
    """Return the messages that are neither handled nor scheduled yet."""
    for identity, request in tuple(reserved.items()):
        if identity not in active and identity not in scheduled:
            yield request
