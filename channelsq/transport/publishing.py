"""Messages that threads of this process are publishing at the moment.

A worker may run in the process that publishes: embedded, in tests, or because a task calls another.  Redis answers a
blocked consumer before the publisher.  So the worker's thread would get the message first, and signals such as
``task_received`` would come before ``apply_async()`` has returned.  Kombu's Redis transport makes a round trip to
Redis for each received message, which hides this; here the consumer waits for the publisher's answer.
"""

from __future__ import annotations

import os
import time

#: The most seconds that a message waits for the answers of current publishers.
PATIENCE = 0.100

#: Seconds between two checks.
STEP = 0.0001

#: The publications that Redis has not answered.
_under_way: set[object] = set()


def begin() -> object:
    """Record the start of a publication; return the argument for :func:`end`."""
    publication = object()
    _under_way.add(publication)
    return publication


def end(publication: object) -> None:
    """Record that Redis has answered, or never will."""
    _under_way.discard(publication)


def wait() -> None:
    """Let the publishers of this process get their answers before their messages are delivered here.

    If a publisher's answer does not come, only one poll waits for it.
    """
    if not _under_way:
        return
    publications = _under_way.copy()
    deadline = time.monotonic() + PATIENCE
    while not publications.isdisjoint(_under_way):
        if time.monotonic() > deadline:
            _under_way.difference_update(publications)
            return
        time.sleep(STEP)


# A forked child does not have the parent's threads.
os.register_at_fork(after_in_child=_under_way.clear)
