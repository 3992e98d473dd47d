"""Rates and percentiles from counters."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from channelsq.contrib.dashboard.rates import MOST_READINGS, Increase, Reading, increase, kept, percentile

RECEIVED = "channelsq_websocket_messages_received_total"
REFUSED = "channelsq_refused_total"
URL, OTHER = "http://a/-/metrics", "http://b/-/metrics"


def reading(time: float, sent: int = 0, **pages: dict[str, float]) -> Reading:
    urls = {"a": URL, "b": OTHER}
    return Reading(time, {"default websocket.receive": sent}, {urls[name]: page for name, page in pages.items()})


def page(received: float, processes: float = 1, **more: float) -> dict[str, float]:
    return {RECEIVED: received, "channelsq_processes": processes, **more}


def test_one_reading_has_no_rates() -> None:
    grown = increase([reading(10.0, 5, a=page(3))])
    assert grown == Increase(0.0, {}, {}, has_pages=False)
    assert grown.rate(RECEIVED) is None
    assert grown.sent_rate("default websocket.receive") is None
    assert grown.percentile(0.5, "websocket.receive") is None


def test_rates_are_of_the_first_and_the_last_reading_and_of_all_pages() -> None:
    grown = increase([
        reading(10.0, 5, a=page(100), b=page(10)),
        reading(12.0, 6, a=page(103)),
        reading(14.0, 25, a=page(108), b=page(30)),
    ])  # fmt: skip
    assert grown.rate(RECEIVED) == 7.0
    assert grown.sent_rate("default websocket.receive") == 5.0


def test_a_counter_begins_with_nothing_and_labels_are_added_up() -> None:
    before = page(0, **{f"{REFUSED}|http|413|body_too_large": 2.0})
    now = page(0, **{f"{REFUSED}|http|413|body_too_large": 4.0, f"{REFUSED}|websocket|503|unavailable": 6.0})
    assert increase([reading(10.0, a=before), reading(12.0, a=now)]).rate(REFUSED) == 4.0


@pytest.mark.parametrize("broken", [page(7), page(500, processes=3), None], ids=["restarted", "processes", "away"])
def test_a_page_whose_counters_do_not_continue_is_left_out(broken: dict[str, float] | None) -> None:
    pages = {"b": page(14)} | ({} if broken is None else {"a": broken})
    grown = increase([reading(10.0, a=page(100), b=page(10)), reading(12.0, 0, **pages)])
    assert grown.rate(RECEIVED) == 2.0
    alone = {} if broken is None else {"a": broken}
    assert increase([reading(10.0, a=page(100)), reading(12.0, 0, **alone)]).rate(RECEIVED) is None


def test_readings_before_a_pause_are_not_used() -> None:
    readings = [reading(float(time)) for time in (10, 80, 90, 92, 94, 96, 98, 101)]
    found = kept(readings, 100.0, 2.0)
    assert [each.time for each in found] == [92, 94, 96, 98][-MOST_READINGS:]
    assert kept(readings, 300.0, 2.0) == []
    assert [each.time for each in kept(readings, 160.0, 30.0)] == [101]  # a long interval


def test_percentiles_are_those_of_prometheus() -> None:
    assert percentile(0.5, {0.1: 10, 0.2: 20, math.inf: 20}) == pytest.approx(0.1)
    assert percentile(0.75, {0.1: 10, 0.2: 20, math.inf: 20}) == pytest.approx(0.15)
    assert percentile(0.25, {0.1: 10, 0.2: 20, math.inf: 20}) == pytest.approx(0.05)
    assert percentile(0.9, {0.1: 0, 0.2: 0, 0.4: 4, math.inf: 4}) == pytest.approx(0.38)
    assert percentile(0.99, {0.1: 1, math.inf: 10}) == 0.1  # beyond the last bound
    assert percentile(0.5, {0.1: 0, math.inf: 0}) is None
    assert percentile(0.5, {}) is None
    assert percentile(0.5, {0.1: 5}) is None  # without the bucket of all


def test_percentiles_of_a_real_histogram_lie_in_its_bucket() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "Help.", registry=registry)
    for number in range(1000):
        histogram.observe(number / 1000)
    samples: list[Sample] = next(iter(registry.collect())).samples
    buckets = {float(each.labels["le"]): each.value for each in samples if each.name == "seconds_bucket"}
    for part in (0.5, 0.95, 0.99):
        assert percentile(part, buckets) == pytest.approx(part, abs=0.01)
