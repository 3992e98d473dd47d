"""Rates and percentiles, from the counters of two moments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from channelsq.contrib.dashboard.metrics_pages import COUNTERS, SEPARATOR, Numbers

#: Seconds over which rates and percentiles are taken, and the most readings that are kept for it.
WINDOW, MOST_READINGS = 10.0, 4

#: A metric whose change means that the pages of two moments cannot be compared.
_PROCESSES = "channelsq_processes"


@dataclass(frozen=True)
class Reading:
    """The counters of a site at one moment.

    Args:
        time: the moment, in seconds since the epoch.
        sent: the messages that each channel has had, by layer and channel.
        pages: the numbers of each metrics page, by its address.
    """

    time: float
    sent: Mapping[str, int]
    pages: Mapping[str, Numbers]


def kept(readings: Sequence[Reading], now: float, every: float) -> list[Reading]:
    """Return the readings that later rates may use: those of the last seconds, in order.

    Args:
        readings: the readings so far.
        now: the time of the next reading.
        every: the seconds between two readings.
    """
    window = max(WINDOW, 2 * every) + 1
    return [each for each in readings if 0 < now - each.time <= window][-MOST_READINGS:]


@dataclass(frozen=True)
class Increase:
    """The increase of all counters between two readings.

    Args:
        seconds: the time between the readings; 0 if there is only one.
        sent: messages by layer and channel.
        numbers: those of all metrics pages that both readings have.
        has_pages: whether any page could be compared.
    """

    seconds: float
    sent: Mapping[str, int]
    numbers: Numbers
    has_pages: bool

    def rate(self, metric: str) -> float | None:
        """Return the increase of a metric a second, over all values of its labels; None if unknown."""
        if not self.has_pages:
            return None
        return sum(number for _, number in values_of(self.numbers, metric)) / self.seconds

    def sent_rate(self, channel: str) -> float | None:
        """Return the messages a second that a channel has had; None if unknown."""
        return self.sent[channel] / self.seconds if channel in self.sent else None

    def percentile(self, part: float, channel: str) -> float | None:
        """Return the seconds within which a part of a channel's messages was answered; None without messages."""
        values = values_of(self.numbers, "channelsq_reply_seconds_bucket")
        return percentile(part, {float(le): count for (name, le), count in values if name == channel})


def increase(readings: Sequence[Reading]) -> Increase:
    """Return the increase from the first to the last of some readings.

    A page of a server that was restarted, or whose processes did not all answer, is left out: its counters do not
    continue those before.
    """
    if len(readings) < 2:
        return Increase(0.0, {}, {}, has_pages=False)
    first, last = readings[0], readings[-1]
    sent = {
        name: number - first.sent[name]
        for name, number in last.sent.items()
        if name in first.sent and number >= first.sent[name]
    }
    total: Numbers = {}
    compared = 0
    for url, numbers in last.pages.items():
        before = first.pages.get(url)
        grown = None if before is None else _grown(before, numbers)
        if grown is not None:
            compared += 1
            for key, number in grown.items():
                total[key] = total.get(key, 0.0) + number
    return Increase(last.time - first.time, sent, total, has_pages=compared > 0)


def _grown(before: Numbers, now: Numbers) -> Numbers | None:
    """Return the increase of one page's counters; None if they do not continue."""
    if before.get(_PROCESSES) != now.get(_PROCESSES):
        return None
    counters = [key for key in {*before, *now} if key.partition(SEPARATOR)[0] in COUNTERS]
    grown = {key: now.get(key, 0.0) - before.get(key, 0.0) for key in counters}
    return None if any(number < 0 for number in grown.values()) else grown


def values_of(numbers: Numbers, metric: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the values of a metric, each with the values of its labels."""
    for key, number in numbers.items():
        name, *labels = key.split(SEPARATOR)
        if name == metric:
            yield tuple(labels), number


def percentile(part: float, buckets: Mapping[float, float]) -> float | None:
    """Return the value below which a part of the observations is, as Prometheus' ``histogram_quantile`` does.

    Args:
        part: between 0 and 1.
        buckets: the cumulative number of observations by the upper bound of their bucket.
    """
    bounds = sorted(buckets)
    if not bounds or not math.isinf(bounds[-1]) or buckets[bounds[-1]] <= 0:
        return None
    rank = part * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = (lower if math.isinf(bound) else bound), count
    return lower
