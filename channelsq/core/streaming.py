"""The number of streaming responses in this process: each holds a thread, so they have a limit.

Every streaming response counts while it runs.  A response of known length, such as a file's, is never refused, as it
ends.  Any other may be endless: at the limit it is refused, before its generator starts.  If a running response is so
young that it may be short, the new one first waits for its end, so a burst of short responses passes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

logger = logging.getLogger("channelsq.worker")

#: Seconds for which a running response counts as young, and another one waits for its end.
YOUNG = 1.0


class Streaming(NamedTuple):
    """The streaming responses of a worker, or of one of its processes."""

    running: int
    #: How many may run; None for no limit.
    limit: int | None

    def __add__(self, other: object) -> Streaming:
        """Add the responses of another process."""
        if not isinstance(other, Streaming):
            return NotImplemented
        limit = None if self.limit is None or other.limit is None else self.limit + other.limit
        return Streaming(self.running + other.running, limit)


class StreamingResponses:
    """The streaming responses to a layer's requests in this process.  Thread-safe."""

    def __init__(self) -> None:
        #: How many may run; None for no limit.
        self.limit: int | None = None
        #: How many were refused.
        self.refused = 0
        self._changed = threading.Condition()
        self._begun: dict[object, float] = {}  # the oldest first
        self._waiting: deque[object] = deque()  # no more than there are threads

    @property
    def state(self) -> Streaming:
        """The number of running responses, and the limit."""
        return Streaming(len(self._begun), self.limit)

    @contextlib.contextmanager
    def one_more(self, *, ends: bool) -> Iterator[bool]:
        """Count a response while the context lasts, and yield whether it may run.

        Args:
            ends: whether its length is known.
        """
        token = object()
        with self._changed:
            admitted = ends or self.limit is None or self._await_room(token, self.limit)
            if admitted:
                self._begun[token] = time.monotonic()
            else:
                self.refused += 1
        try:
            yield admitted
        finally:
            if admitted:
                with self._changed:
                    del self._begun[token]
                    self._changed.notify_all()

    def _await_room(self, token: object, limit: int) -> bool:
        """Wait for a place, after earlier waiting responses; return False if none becomes free soon."""
        until = time.monotonic() + YOUNG
        self._waiting.append(token)
        try:
            while (is_full := len(self._begun) >= limit) or self._waiting[0] is not token:
                # A free place belongs to the first in the queue, whose response may be short.
                young_until = next(reversed(self._begun.values())) + YOUNG if is_full else until
                left = min(until, young_until) - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True
        finally:
            self._waiting.remove(token)
            self._changed.notify_all()


_by_alias: dict[str, StreamingResponses] = {}
# A child of the worker runs none of its responses, and may have been forked while a lock was held.
os.register_at_fork(after_in_child=_by_alias.clear)


def responses_of(alias: str) -> StreamingResponses:
    """Return the responses to requests of a layer.

    Args:
        alias: the layer's alias.
    """
    return _by_alias.setdefault(alias, StreamingResponses())


def bound(chosen: int | None, threads: int) -> int:
    """Return how many streaming responses may run in a process.

    Args:
        chosen: ``CONFIG["streaming_responses"]``; None for half of the threads.
        threads: how many consumers of the layer run at once.
    """
    return max(1, threads // 2) if chosen is None else chosen


def set_limit(alias: str, chosen: int | None, threads: int) -> None:
    """Set the :func:`bound` of this process, which runs consumers of the layer with an alias."""
    responses_of(alias).limit = bound(chosen, threads)
    if chosen is not None and chosen >= threads:
        logger.warning(
            "%s: as many streaming responses may run as there are threads (CONFIG['streaming_responses'] is %d, the "
            "threads are %d), so that they can stop everything else: raise CONFIG['threads']",
            alias,
            chosen,
            threads,
            extra={"action": "streaming_may_take_all"},
        )


def state_here() -> Mapping[str, Streaming]:
    """Return the state of this process, by the alias of the layer."""
    return {alias: responses.state for alias, responses in tuple(_by_alias.items())}
