"""The content of one sample for the page: numbers, notes and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from channelsq.contrib.dashboard.metrics_pages import MetricsPage, Numbers
from channelsq.contrib.dashboard.rates import Increase, values_of
from channelsq.core import names
from channelsq.operations.page import page_of
from channelsq.operations.snapshot import Snapshot
from channelsq.operations.tables import Line

#: The most rows of each table; the page says how many are left out.
MOST_ROWS = 100

#: The part of a channel's capacity from which a note warns.
_NEARLY_FULL = 0.8

_HINT = (
    "Latencies, refusals and slow clients come from the metrics of interface servers: run them with --metrics, and "
    'name their pages in the settings, such as CHANNEL_DASHBOARD = {"metrics": ["http://127.0.0.1:8000/-/metrics"]}.'
)

#: The tables of counters: their titles, and their metrics.
_COUNTED = {
    "Refused by interface servers": "channelsq_refused_total",
    "WebSockets closed because of their client": "channelsq_websocket_closed_total",
    "Messages dropped for slow clients": "channelsq_websocket_dropped_total",
    "Responses cut off": "channelsq_http_cut_off_total",
    "Failed attempts to publish": "channelsq_publish_failures_total",
}

_PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def point_of(
    now: float, layers: Sequence[dict[str, Any]], pages: Sequence[MetricsPage], grown: Increase
) -> dict[str, Any]:
    """Return one point of the charts; a value is None if it is unknown.

    Args:
        now: the time, in seconds since the epoch.
        layers: the layers of the snapshot, for JSON.
        pages: the metrics pages.
        grown: the increase of the counters.
    """
    received = grown.rate("channelsq_websocket_messages_received_total")
    if received is None:
        received = _total(grown.sent_rate(f"{each['layer']} {names.WEBSOCKET_RECEIVE}") for each in layers)
    latencies = {name: grown.percentile(part, names.WEBSOCKET_RECEIVE) for name, part in _PARTS.items()}
    return {
        "time": round(now, 2),
        "sockets": _sockets(layers, pages),
        "received": _rounded(received),
        "sent": _rounded(grown.rate("channelsq_websocket_messages_sent_total")),
        "requests": _rounded(grown.rate("channelsq_http_requests_total")),
        **{name: None if seconds is None else round(seconds * 1000, 2) for name, seconds in latencies.items()},
        "waiting": _total(row["waiting"] for each in layers for row in each["channels"]),
        "held": _total(row["held"] for each in layers for row in each["channels"]),
    }


def frame_of(
    snapshot: Snapshot,
    layers: list[dict[str, Any]],
    pages: Sequence[MetricsPage],
    grown: Increase,
    point: dict[str, Any],
) -> dict[str, Any]:
    """Return the frame of a sample.

    Args:
        snapshot: the snapshot.
        layers: its layers for JSON; their long lists are cut.
        pages: the metrics pages.
        grown: the increase of the counters.
        point: the point of the charts.
    """
    groups = [each["groups"] for each in layers if each["groups"] is not None]
    is_inside = all(state.is_inside for state in snapshot.layers)
    versions = {row["version"] for each in layers for row in each["interfaces"] or ()}
    streaming = [row for each in layers for row in each["workers"] if row["streaming_limit"] is not None]
    totals = {
        "interfaces": _total(None if (found := each["interfaces"]) is None else len(found) for each in layers),
        "workers": None if is_inside else len({row["name"] for each in layers for row in each["workers"]}),
        "versions": sorted(filter(None, versions)),
        "streaming": sum(row["streaming"] or 0 for row in streaming) if streaming else None,
        "groups": sum(each["total"] for each in groups) if groups else None,
        "largest": max((row["members"] for each in groups for row in each["shown"]), default=None),
        "dead": _total(row["dead"] for each in layers for row in each["channels"]),
        "refused": _rounded(grown.rate("channelsq_refused_total")),
        "slow": _slow(pages),
    }
    for each, state in zip(layers, snapshot.layers, strict=True):
        each["inside"] = state.is_inside
        for row in each["channels"]:
            row["rate"] = _rounded(grown.sent_rate(f"{each['layer']} {row['channel']}"))
        for kind in ("channels", "workers", "interfaces"):
            rows = each[kind] or []
            each[f"{kind}_left_out"] = max(0, len(rows) - MOST_ROWS)
            each[kind] = None if each[kind] is None else rows[:MOST_ROWS]
    return {
        "type": "sample",
        "notes": [{"level": level, "text": text[:1].upper() + text[1:]} for level, text in _notes(snapshot, pages)],
        "point": point,
        "totals": totals,
        "layers": layers,
        "latency": _latency(grown),
        "counted": _counted(pages, grown),
        "hint": "" if pages else _HINT,
    }


def _notes(snapshot: Snapshot, pages: Sequence[MetricsPage]) -> Iterator[tuple[str, str]]:
    """Yield the level, bad or warn, and the text of each note."""
    several = len(snapshot.layers) > 1
    for state in snapshot.layers:
        where = f"layer {state.alias}: " if several else ""
        for line in page_of(Snapshot(snapshot.time, [state])):
            if isinstance(line, Line) and line.style in ("bad", "warn"):
                yield line.style, f"{where}{line.text}"
        for row in state.channels[:MOST_ROWS]:
            if row.consumers == ():
                yield "bad", f"{where}no worker consumes {row.name}"
            if row.fullness >= _NEARLY_FULL:
                what = "is full" if row.fullness >= 1 else "is nearly full"
                level = "bad" if row.fullness >= 1 else "warn"
                yield level, f"{where}channel {row.name} {what}: {row.state.waiting} of {row.capacity} messages wait"
            if row.state.dead:
                yield (
                    "warn",
                    f"{where}channel {row.name} has {row.state.dead} dead letter{'' if row.state.dead == 1 else 's'}",
                )
    for page in pages:
        if page.problem:
            yield "warn", page.problem
        elif not page.numbers.get("channelsq_broker_reachable", 1.0):
            yield "bad", f"the interface server of {page.url} does not reach its broker"


def _sockets(layers: Sequence[dict[str, Any]], pages: Sequence[MetricsPage]) -> int | None:
    """Return the number of open sockets, as servers announce them; otherwise as their metrics pages count them."""
    announced = _total(row["sockets"] for each in layers for row in each["interfaces"] or ())
    if announced is not None:
        return int(announced)
    counted = _total(page.numbers.get("channelsq_websockets") for page in pages)
    return None if counted is None else int(counted)


def _latency(grown: Increase) -> list[dict[str, Any]]:
    """Return the percentiles of each channel whose messages were answered, in milliseconds."""
    values = values_of(grown.numbers, "channelsq_reply_seconds_bucket")
    counts = {channel: count for (channel, le), count in values if le == "+Inf" and count > 0}
    rows = []
    for channel, count in sorted(counts.items()):
        found = {name: grown.percentile(part, channel) for name, part in _PARTS.items()}
        times = {name: None if seconds is None else round(seconds * 1000, 2) for name, seconds in found.items()}
        rows.append({"channel": channel, "rate": _rounded(count / grown.seconds), **times})
    return rows


def _counted(pages: Sequence[MetricsPage], grown: Increase) -> list[dict[str, Any]]:
    """Return the tables of counters: the total since the start of each server, and the increase a minute."""
    tables = []
    for title, metric in _COUNTED.items():
        totals: Numbers = {}
        for page in pages:
            for labels, number in values_of(page.numbers, metric):
                name = " ".join(labels) or "all"
                totals[name] = totals.get(name, 0.0) + number
        recent = {" ".join(labels) or "all": number for labels, number in values_of(grown.numbers, metric)}
        rows = [
            {
                "name": name.replace("_", " "),
                "total": int(number),
                "minute": round(recent.get(name, 0.0) / grown.seconds * 60, 1) if grown.has_pages else None,
            }
            for name, number in sorted(totals.items(), key=lambda each: -each[1])[:MOST_ROWS]
            if number
        ]
        if rows:
            tables.append({"title": title, "rows": rows})
    return tables


def _slow(pages: Sequence[MetricsPage]) -> int | None:
    """Return the number of sockets that were closed as their clients read too slowly; None if unknown."""
    found = [page.numbers for page in pages if not page.problem]
    if not found:
        return None
    return int(sum(numbers.get("channelsq_websocket_closed_total|slow_client", 0.0) for numbers in found))


def _total(numbers: Iterable[float | None]) -> float | None:
    """Return the sum of the known numbers; None if none is known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)
