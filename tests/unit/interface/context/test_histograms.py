"""Histograms of durations."""

from __future__ import annotations

from channelsq.exceptions import ChannelFull
from channelsq.interface.context.histograms import BOUNDS, Histogram, Measures
from tests.support.fakes.clients import RecordingPublisher
from tests.support.fakes.loops import FakeClock


def test_buckets_are_cumulative_and_hold_their_bounds() -> None:
    histogram = Histogram()
    for value in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 0.3, 0.5, 1e6):
        histogram.observe(value)
    buckets = dict(histogram.buckets())
    assert list(buckets) == [*map(str, BOUNDS), "+Inf"]
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.25"], buckets["0.5"]) == (2, 3, 3, 5)
    assert (buckets["120.0"], buckets["+Inf"]) == (5, 6)
    assert histogram.sum == 0.0 + BOUNDS[0] * 2.01 + 0.8 + 1e6


def test_bounds_rise() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_a_publication_is_measured_when_the_broker_has_it_and_not_before() -> None:
    now, publisher = FakeClock(), RecordingPublisher()
    measures = Measures(now)
    timed = measures.timed(publisher, "websocket.receive")
    error = ChannelFull("websocket.receive", 100)
    now.time += 0.2
    timed.published(3, error)
    assert dict(measures.publish["websocket.receive"].buckets())["+Inf"] == 0
    now.time += 0.2
    timed.published(3, None)
    assert publisher.told == [(3, error), (3, None)]
    buckets = dict(measures.publish["websocket.receive"].buckets())
    # Both tries together.
    assert (buckets["0.25"], buckets["0.5"]) == (0, 1)
    assert dict(measures.publish["http.request"].buckets())["+Inf"] == 0


def test_answers_are_counted_by_status() -> None:
    now = FakeClock()
    measures = Measures(now)
    now.time = 103.0
    for status in (200, 200, 503):
        measures.answered(status, 100.0)
    assert measures.responses == {200: 2, 503: 1}
    assert measures.requests.sum == 9.0
