"""Messages that wait in a worker for their ETA or a rate limit."""

from __future__ import annotations

import heapq
import itertools
from time import time

from celery.utils.time import rate
from kombu.utils.limits import TokenBucket

from channelsq.worker.sources import held_messages
from channelsq.worker.sources.consumer_request import Request

#: The most seconds between two checks of a rate limit for a waiting message, as the limit may change.
ASKS_EVERY = 1.0


class Delayed:
    """The delayed messages of a source.  Threads other than the polling one may only read their number."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._number = itertools.count()
        self._buckets: dict[str, tuple[str, TokenBucket]] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: Request, due: float) -> None:
        """Delay a request until ``time.time()`` is ``due``."""
        held_messages.scheduled[request.id] = request
        heapq.heappush(self._heap, (due, next(self._number), request))

    def due(self) -> list[Request]:
        """Return the requests that are due."""
        now, found = time(), []
        while self._heap and self._heap[0][0] <= now:
            request = heapq.heappop(self._heap)[2]
            held_messages.scheduled.pop(request.id, None)
            found.append(request)
        return found

    def seconds(self, most: float) -> float:
        """Return the seconds until the next one is due, at most ``most``."""
        return most if not self._heap else min(most, max(0.001, self._heap[0][0] - time()))

    def clear(self) -> list[Request]:
        """Return all requests, due or not, and forget them."""
        heap, self._heap = self._heap, []
        for _, _, request in heap:
            held_messages.scheduled.pop(request.id, None)
        return [request for _, _, request in heap]

    def limited_until(self, request: Request) -> float:
        """Return the ``time.time()`` of a request's next check of its rate limit; 0 if it may begin."""
        limit = request.task.rate_limit
        if not limit:
            return 0.0
        known = self._buckets.get(request.name)
        if known is None or known[0] != str(limit):
            known = self._buckets[request.name] = str(limit), TokenBucket(rate(limit), capacity=1)
        bucket = known[1]
        if not (bucket.fill_rate or 0) > 0 or bucket.can_consume(1):  # "0" means no limit in control and Flower
            return 0.0
        return time() + min(ASKS_EVERY, max(0.001, bucket.expected_time(1)))
