"""The targets of channelsq, and whether a run reaches them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.consumers import (
    EVENTS,
    FLOWER,
    ONE_PROCESS,
    PROCESSES,
    QUERY,
    SENTRY,
    SOCKET,
    SOCKETS,
    TIME_LIMIT,
    TWO_PROCESSES,
    WAITS,
    blocked,
    on_broker,
    on_layer,
)
from benchmarks.parts import PAGES
from benchmarks.results import REFERENCE, Results
from benchmarks.stacks import BROKERS, LAYERS
from benchmarks.tasks import COMPUTING, ECHOES, IDLE, POOLS, STOCK, named

SYNC, ASYNC = "Channels 4, sync consumer", "Channels 4, async consumer"
SOLO = f"{REFERENCE}, solo pool"

#: Finds a number in the results; None if it was not measured.
Value = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        text: the requirement.
        limit: the number to reach; None if it is only shown.
        at_least: whether more is better.
        unit: the unit of the number.
        value: finds the reached number; None if it was not measured.
        needs: the requirement of the measurement; see :class:`benchmarks.services.Unavailable`.
    """

    text: str
    limit: float | None
    at_least: bool
    unit: str
    value: Value
    needs: str = ""

    def row(self, results: Results) -> list[str]:
        """Return the line: text, target, result, verdict."""
        value = self.value(results)
        bound = "at least" if self.at_least else "at most"
        asked = "" if self.limit is None else f"{bound} {self.limit:g} {self.unit}"
        if value is None:
            return [self.text, asked, "not measured", results.missing.get(self.needs, "")]
        reached = f"{value:.3g} {self.unit}"
        if self.limit is None:
            return [self.text, asked, reached, ""]
        met = value >= self.limit if self.at_least else value <= self.limit
        return [self.text, asked, reached, "met" if met else "**missed**"]


def _ratio(part: str, metric: str, one: tuple[str, str], other: tuple[str, str]) -> Value:
    """Return the ratio of two medians, each named by work and contestant."""

    def value(results: Results) -> float | None:
        above, below = (results.median(part, work, who, metric) for work, who in (one, other))
        return None if above is None or not below else above / below

    return value


def _difference(part: str, metric: str, one: tuple[str, str], other: tuple[str, str]) -> Value:
    """Return the difference of two medians, each named by work and contestant."""

    def value(results: Results) -> float | None:
        above, below = (results.median(part, work, who, metric) for work, who in (one, other))
        return None if above is None or below is None else above - below

    return value


def _median(part: str, work: str, who: str, metric: str) -> Value:
    return lambda results: results.median(part, work, who, metric)


def _rate(part: str, ours: str, theirs: str, work: str = SOCKETS) -> Value:
    return _ratio(part, "messages/s", (work, ours), (work, theirs))


def _soak(results: Results) -> float | None:
    growth = [each.median for each in results.series if each.part == "soak" and each.metric == "growth %"]
    return max(growth) if growth else None


def _fan(source: str) -> Value:
    work = "1000 members"
    metric = f"deliveries/s, sent from {source}"
    return _ratio("fanout", metric, (work, REFERENCE), (work, "Channels 4, pubsub layer"))


def _linear(results: Results) -> float | None:
    metric = "p50 ms to the last, sent from outside"
    ratio = _ratio("fanout", metric, ("5000 members", REFERENCE), ("1000 members", REFERENCE))(results)
    return None if ratio is None else ratio / 5


def _on_brokers() -> list[Target]:
    """Return the targets for echoes, with each of Celery's brokers."""
    return [
        Target(
            f"{SOCKETS} echoing, Celery on {shown}, against {theirs.replace(',', '').removesuffix(' consumer')}",
            limit,
            True,
            "x",
            _rate("brokers", on_broker(broker), theirs),
            shown,
        )
        for broker, shown in BROKERS.items()
        for theirs, limit in ((SYNC, 6.5), (ASYNC, 2.4))
    ]


def _on_layers() -> list[Target]:
    """Echo benchmarks with the channel layers that are not on Redis streams."""
    return [
        Target(
            f"{SOCKETS} echoing, channels on {shown}, against {SYNC.replace(',', '').removesuffix(' consumer')}",
            2 if layer == "ipc" else 1,
            True,
            "x",
            _rate("layers", on_layer(layer), SYNC),
            shown,
        )
        for layer, shown in LAYERS.items()
        if layer not in ("streams", "shards")
    ]


def _on_shards() -> list[Target]:
    """Return the target for a second Redis that is not needed."""
    one, two = on_layer("streams"), on_layer("shards")
    return [
        Target(
            f"{SOCKETS} echoing, channels on two Redis servers, against one",
            0.9,
            True,
            "x",
            _rate("layers", two, one),
            LAYERS["shards"],
        )
    ]


def _on_ipc() -> list[Target]:
    """Return the other targets for one machine without a broker."""
    ipc = on_layer("ipc")
    theirs = (PAGES, "Django's ASGI handler, sync view")
    return [
        Target("one socket, p50, channels on IPC", 1.5, False, "ms", _median("layers", SOCKET, ipc, "p50 ms")),
        Target(
            "a Django view, channels on IPC, against Django's ASGI handler with the same sync view",
            1,
            True,
            "x",
            _ratio("layers", "requests/s", (PAGES, ipc), theirs),
        ),
    ]


def _waiting() -> list[Target]:
    """Return the targets for echoes of consumers that block."""
    return [
        Target(
            f"{blocked(us)}, against Channels 4 sync",
            limit,
            True,
            "x",
            _rate("waiting", REFERENCE, SYNC, blocked(us)),
        )
        for us, limit in zip(WAITS, (5, 7, 8), strict=True)
    ]


def _pages() -> list[Target]:
    """Return the targets for a Django view, with each of Celery's brokers."""
    theirs = (PAGES, "Django's ASGI handler, sync view")
    return [
        Target(
            f"a Django view, Celery on {shown}, against Django's ASGI handler with the same sync view",
            7,
            True,
            "x",
            _ratio("brokers", "requests/s", (PAGES, on_broker(broker)), theirs),
            shown,
        )
        for broker, shown in BROKERS.items()
    ]


def _tasks() -> list[Target]:
    """Return the targets for ordinary tasks beside consumers."""
    found: list[Target] = []
    for beside in (ECHOES, COMPUTING):
        for pool in POOLS:
            who, text = (beside.work, named(pool)), f"{beside.work}, -P {pool}"
            stock = (beside.work, named(pool, STOCK))
            rate, p99 = (_ratio("tasks", metric, who, stock) for metric in ("tasks/s", "p99 ms"))
            found += [
                Target(f"{text}: tasks/s, against a stock worker with that load beside it", 0.95, True, "x", rate),
                Target("the same: p99 of a task", 1.05, False, "x", p99),
            ]
            if beside is ECHOES:
                kept = _median("tasks", *who, "messages/s beside")
                found.append(Target("the same: echoes that were kept up", None, True, "a second", kept))
    return found


def _idle() -> list[Target]:
    """Return the targets for an idle worker, against stock Celery with the same pool."""
    threads, stock = ((IDLE, named("threads", who)) for who in (REFERENCE, STOCK))
    processes, stock_processes = ((IDLE, named("prefork", who)) for who in (REFERENCE, STOCK))
    used = "% of a core"
    return [
        Target(
            "idle worker, threads: CPU more than stock Celery's",
            1,
            False,
            used,
            _difference("idle", used, threads, stock),
        ),
        Target("the same, prefork", 1, False, used, _difference("idle", used, processes, stock_processes)),
        Target(
            "idle worker, threads: memory more than stock Celery's",
            30,
            False,
            "MB",
            _difference("idle", "MB", threads, stock),
        ),
    ]


TARGETS = [
    *_on_brokers(),
    *_on_layers(),
    *_on_ipc(),
    *_on_shards(),
    *_waiting(),
    Target(f"{QUERY}, against Channels 4 sync", 2, True, "x", _rate("database", REFERENCE, SYNC, QUERY), "PostgreSQL"),
    Target(
        "the same, against Channels 4 async with database_sync_to_async",
        1.7,
        True,
        "x",
        _rate("database", REFERENCE, ASYNC, QUERY),
        "PostgreSQL",
    ),
    Target("100 sockets echoing, solo pool, against Channels 4 sync", 5, True, "x", _rate("echo", SOLO, SYNC)),
    Target("the same, against Channels 4 async", 1.8, True, "x", _rate("echo", SOLO, ASYNC)),
    Target(
        "one socket, p50, against Channels 4 sync",
        1.4,
        False,
        "x",
        _ratio("echo", "p50 ms", ("1 socket", REFERENCE), ("1 socket", SYNC)),
    ),
    Target("one socket, p50", 0.5, False, "ms", _median("echo", "1 socket", REFERENCE, "p50 ms")),
    Target(
        "echo/s at 1000 sockets, against 100",
        0.9,
        True,
        "x",
        _ratio("echo", "messages/s", ("1000 sockets", REFERENCE), (SOCKETS, REFERENCE)),
    ),
    *_pages(),
    Target(
        "100 sockets echoing, prefork for tasks and consumers in one process of their own, against threads",
        0.9,
        True,
        "x",
        _rate("processes", ONE_PROCESS, REFERENCE),
        PROCESSES,
    ),
    Target(
        "the same with two processes, against one",
        None,
        True,
        "x",
        _rate("processes", TWO_PROCESSES, ONE_PROCESS),
        PROCESSES,
    ),
    Target(
        "100 sockets echoing with task_time_limit 300, against none",
        0.8,
        True,
        "x",
        _rate("observed", TIME_LIMIT, REFERENCE),
    ),
    Target(
        "100 sockets echoing with -E and a receiver of events, against none",
        0.8,
        True,
        "x",
        _rate("observed", EVENTS, REFERENCE),
    ),
    Target(
        "100 sockets echoing with Flower attached, against none",
        0.8,
        True,
        "x",
        _rate("observed", FLOWER, REFERENCE),
    ),
    Target(
        "100 sockets echoing with Sentry's Celery integration, against none",
        0.8,
        True,
        "x",
        _rate("observed", SENTRY, REFERENCE),
    ),
    *_tasks(),
    *_idle(),
    Target("fan-out to 1000, sent from outside, against the pubsub layer", 15, True, "x", _fan("outside")),
    Target("fan-out to 1000, sent from a consumer, against the pubsub layer", 15, True, "x", _fan("consumer")),
    Target("fan-out time a member at 5000, against 1000", 1.25, False, "x", _linear),
    Target(
        "group sends/s with 10000 other groups, against none",
        0.9,
        True,
        "x",
        _ratio("groups", "sends/s", ("10000 other groups", REFERENCE), ("0 other groups", REFERENCE)),
    ),
    Target(
        "CPU an echo at 100 sockets, all processes",
        120,
        False,
        "us",
        _median("echo", SOCKETS, REFERENCE, "CPU us a message"),
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
]
