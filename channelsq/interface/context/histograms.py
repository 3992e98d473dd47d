"""Durations for ``--metrics``: histograms, filled in the event loop."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator

from channelsq.core import names
from channelsq.interface.link import Publisher

#: Upper bounds (seconds) of the histograms' buckets: from an echo on one machine to the longest timeouts.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Channels whose messages are measured.  No name here comes from a client.
WEBSOCKET = (names.WEBSOCKET_CONNECT, names.WEBSOCKET_RECEIVE, names.WEBSOCKET_DISCONNECT)
CHANNELS = (names.HTTP_REQUEST, *WEBSOCKET)


class Histogram:
    """A count of values by their size."""

    __slots__ = ("_counts", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        #: The sum of all values.
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(BOUNDS, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Return the cumulative count of each bound, then of ``+Inf``, as Prometheus writes them."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            yield bound, total


class Measures:
    """The measurements of one interface server.

    Args:
        now: the event loop's clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: By channel, seconds from handing a message to the link until the broker has it.
        self.publish = {channel: Histogram() for channel in CHANNELS}
        #: By channel, seconds from the same moment until the consumer answers: with the report that it has finished a
        #: WebSocket's message, or with the first part of a response.
        self.reply = {channel: Histogram() for channel in CHANNELS}
        #: By channel, seconds of that time that the consumer took, by its worker's clock.
        self.consumer = {channel: Histogram() for channel in WEBSOCKET}
        #: Seconds from a request's head to its response's last byte, for requests that had a response.
        self.requests = Histogram()
        #: Those responses, by status.
        self.responses: Counter[int] = Counter()

    def timed(self, publisher: Publisher, channel: str) -> Publisher:
        """Return ``publisher`` with a timer, from now until the broker has the publication."""
        return _Timed(publisher, self.publish[channel], self._now)

    def answered(self, status: int, begun: float) -> None:
        """Count a response that ended, complete or cut off; its request came at ``begun``."""
        self.responses[status] += 1
        self.requests.observe(self._now() - begun)


class _Timed:
    """A publisher that measures the time until the broker has its publication, over all attempts."""

    __slots__ = ("_begun", "_histogram", "_now", "_publisher")

    def __init__(self, publisher: Publisher, histogram: Histogram, now: Callable[[], float]) -> None:
        self._publisher = publisher
        self._histogram = histogram
        self._now = now
        self._begun = now()

    def published(self, order: int, error: Exception | None) -> None:
        """See :class:`channelsq.interface.link.Publisher`."""
        if error is None:
            self._histogram.observe(self._now() - self._begun)
        self._publisher.published(order, error)
