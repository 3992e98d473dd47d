"""Messages that threads of this process are publishing just now.

A worker may run in the process that publishes: embedded, in tests, or because a task calls another.  Redis answers a
blocked consumer before the publisher, so the worker's thread would have the message first, and signals such as
``task_received`` would come before ``apply_async()`` has returned.  Kombu's Redis transport makes a round trip to
Redis for each message that it receives, which hides this; here the consumer waits for the publisher's answer.
"""

from __future__ import annotations

import os
import time

#: Seconds that a message waits at most for the answers of those who publish at the moment.
PATIENCE = 0.100

#: Seconds between two looks.
STEP = 0.0001

#: The publications that Redis has not answered.
_under_way: set[object] = set()


def begin() -> object:
    """Note that a publication begins; return what :func:`end` wants."""
    publication = object()
    _under_way.add(publication)
    return publication


def end(publication: object) -> None:
    """Note that Redis has answered, or never will."""
    _under_way.discard(publication)


def wait() -> None:
    """Let the publishers of this process have their answers before what they published is delivered here.

    A publisher whose answer does not come is waited for once, not with every poll.
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


# The parent's threads are not in a forked child.
os.register_at_fork(after_in_child=_under_way.clear)
