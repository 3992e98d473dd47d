"""What channelsq has to reach, and whether a run shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import REFERENCE, Results

SYNC, ASYNC = "Channels 4, sync consumer", "Channels 4, async consumer"
SOLO = f"{REFERENCE}, solo pool"


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        text: what is asked.
        limit: the number to reach.
        at_least: whether it is the least or the most.
        unit: of the number.
        value: finds what was reached; None if it was not measured.
    """

    text: str
    limit: float
    at_least: bool
    unit: str
    value: Callable[[Results], float | None]

    def row(self, results: Results) -> list[str]:
        """The line: what, asked, reached, verdict."""
        value = self.value(results)
        asked = f"{'at least' if self.at_least else 'at most'} {self.limit:g} {self.unit}"
        if value is None:
            return [self.text, asked, "not measured", ""]
        met = value >= self.limit if self.at_least else value <= self.limit
        return [self.text, asked, f"{value:.3g} {self.unit}", "met" if met else "**missed**"]


def _ratio(part: str, metric: str, one: tuple[str, str], other: tuple[str, str]) -> Callable[[Results], float | None]:
    """The ratio of two medians, each named by work and contestant."""

    def value(results: Results) -> float | None:
        above, below = (results.median(part, work, who, metric) for work, who in (one, other))
        return None if above is None or not below else above / below

    return value


def _median(part: str, work: str, who: str, metric: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(part, work, who, metric)


def _echo(ours: str, theirs: str) -> Callable[[Results], float | None]:
    return _ratio("echo", "messages/s", ("100 sockets", ours), ("100 sockets", theirs))


def _soak(results: Results) -> float | None:
    growth = [each.median for each in results.series if each.part == "soak" and each.metric == "growth %"]
    return max(growth) if growth else None


def _fan(source: str) -> Callable[[Results], float | None]:
    work = "1000 members"
    metric = f"deliveries/s, sent from {source}"
    return _ratio("fanout", metric, (work, REFERENCE), (work, "Channels 4, pubsub layer"))


def _linear(results: Results) -> float | None:
    metric = "p50 ms to the last, sent from outside"
    ratio = _ratio("fanout", metric, ("5000 members", REFERENCE), ("1000 members", REFERENCE))(results)
    return None if ratio is None else ratio / 5


_PAGES = "50 connections"

TARGETS = [
    Target("100 sockets echoing, against Channels 4 sync", 4, True, "x", _echo(REFERENCE, SYNC)),
    Target("the same, solo pool", 5, True, "x", _echo(SOLO, SYNC)),
    Target("100 sockets echoing, against Channels 4 async", 1.4, True, "x", _echo(REFERENCE, ASYNC)),
    Target("the same, solo pool", 1.8, True, "x", _echo(SOLO, ASYNC)),
    Target(
        "one socket, p50, against Channels 4 sync",
        2,
        False,
        "x",
        _ratio("echo", "p50 ms", ("1 socket", REFERENCE), ("1 socket", SYNC)),
    ),
    Target("one socket, p50", 1.5, False, "ms", _median("echo", "1 socket", REFERENCE, "p50 ms")),
    Target("fan-out to 1000, sent from outside, against the pubsub layer", 15, True, "x", _fan("outside")),
    Target("fan-out to 1000, sent from a consumer, against the pubsub layer", 15, True, "x", _fan("consumer")),
    Target(
        "a Django view, against Django's ASGI handler with the same sync view",
        2,
        True,
        "x",
        _ratio("http", "requests/s", (_PAGES, REFERENCE), (_PAGES, "Django's ASGI handler, sync view")),
    ),
    Target(
        "CPU an echo at 100 sockets, all processes",
        120,
        False,
        "us",
        _median("echo", "100 sockets", REFERENCE, "CPU us a message"),
    ),
    Target(
        "memory an idle socket in the interface",
        25,
        False,
        "KB",
        _median("memory", "uncompressed", REFERENCE, "KB a socket"),
    ),
    Target(
        "the same with permessage-deflate negotiated",
        40,
        False,
        "KB",
        _median("memory", "permessage-deflate negotiated", REFERENCE, "KB a socket"),
    ),
    Target(
        "soak: growth of memory from the middle third to the last, of the process that grew most", 2, False, "%", _soak
    ),
    Target(
        "echo/s at 1000 sockets, against 100",
        0.75,
        True,
        "x",
        _ratio("echo", "messages/s", ("1000 sockets", REFERENCE), ("100 sockets", REFERENCE)),
    ),
    Target("fan-out time a member at 5000, against 1000", 1.25, False, "x", _linear),
    Target(
        "group sends/s with 10000 other groups, against none",
        0.9,
        True,
        "x",
        _ratio("groups", "sends/s", ("10000 other groups", REFERENCE), ("0 other groups", REFERENCE)),
    ),
]
