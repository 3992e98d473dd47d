"""Metrics: each has its name, and each name is written down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import channelsq.interface
from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.context.histograms import Measures
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.pages.metric_names import COUNTED, METRICS, Collector, depth_gauge
from channelsq.interface.supervision.merged_metrics import merged, packed
from channelsq.layers import InMemoryChannelLayer
from tests.support.markdown import doc_page, rows

SOURCES = sorted(Path(channelsq.interface.__path__[0]).rglob("*.py"))


def new_hub() -> ServerContext:
    context = ServerContext(InterfaceConfig(metrics=True), ChannelLayerWrapper(InMemoryChannelLayer(), "default", []))
    context.measures = Measures(lambda: 1.0)
    return context


def families(context: ServerContext) -> dict[str, Any]:
    return {family.name: family for family in Collector(context).collect()}


def counters() -> Iterator[str]:
    """Every name that the sources count under, as it stands there."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and re.fullmatch(r"(websocket|http|link|replies)\.[a-z_]+", value):
                yield value


def test_every_counter_has_its_metric() -> None:
    channels = {"http.request", "http.disconnect", "websocket.connect", "websocket.receive", "websocket.disconnect"}
    names = set(counters()) - channels - {"websocket.received"}
    assert len(names) > 15
    assert names == set(COUNTED), "put what is counted into COUNTED, and into docs/reference/metrics.md"
    assert {name for name, _ in COUNTED.values()} <= {each.name for each in METRICS}


def test_every_metric_is_written_down_with_its_labels_and_kind() -> None:
    told = [
        [f"`{each.shown}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help] for each in METRICS
    ]
    written = [row[:4] for row in rows(doc_page("metrics")) if row[0].startswith("`channelsq_")]
    assert written == told


def test_every_reason_is_written_down() -> None:
    text = doc_page("metrics").read_text()
    for _, reason in COUNTED.values():
        assert reason is None or f"`{reason}`" in text


def test_every_counter_is_written_down_with_its_metric() -> None:
    told = [
        [f"`{counter}`", f"`{name}_total`" if reason is None else f'`{name}_total{{reason="{reason}"}}`']
        for counter, (name, reason) in COUNTED.items()
    ]
    written = [row for row in rows(doc_page("metrics")) if row in told]
    assert written == told


def test_queries_name_what_there_is() -> None:
    text = doc_page("metrics").read_text()
    named = {
        re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name) for name in re.findall(r"channelsq_[a-z_]+\w", text)
    }
    assert named == {each.shown for each in METRICS}


def test_names_follow_prometheus_conventions() -> None:
    for each in METRICS:
        assert re.fullmatch(r"channelsq_[a-z_]+", each.shown)
        assert each.shown.endswith("_total") == (each.kind == "counter")
        assert each.kind != "histogram" or each.name.endswith("_seconds")


def test_what_was_counted_is_told() -> None:
    context = new_hub()
    context.stats.count("websocket.slow_clients", 3)
    context.stats.count("websocket.begun", 4)
    context.stats.refuse("http", 413, "body_too_large")
    context.stats.refuse("websocket", 503, "unavailable")
    context.stats.refuse("websocket", 503, "unavailable")
    context.stats.cut("response_stalled")
    context.stats.sent_bytes = 77
    found = families(context)
    assert set(found) == {"channelsq_" + each.name for each in METRICS} - {
        "channelsq_queue_messages",
        "channelsq_processes",
        "channelsq_worker_streaming",
        "channelsq_worker_streaming_limit",
    }
    values = {
        (sample.name, *sample.labels.values()): sample.value for family in found.values() for sample in family.samples
    }
    assert values["channelsq_websocket_closed_total", "slow_client"] == 3
    assert values[("channelsq_websocket_handshakes_total",)] == 4
    assert values["channelsq_refused_total", "http", "413", "body_too_large"] == 1
    assert values["channelsq_refused_total", "websocket", "503", "unavailable"] == 2
    assert values["channelsq_http_cut_off_total", "response_stalled"] == 1
    assert values[("channelsq_websocket_sent_bytes_total",)] == 77
    # There before the first of them.
    assert values[("channelsq_websocket_overdue_total",)] == 0
    # By the names that logs and tests use, too.
    assert context.stats["websocket.refused.503"] == context.stats["websocket.unavailable"] == 2
    assert context.stats["http.response_stalled"] == 1


def test_a_counter_that_nobody_listed_is_told_all_the_same() -> None:
    context = new_hub()
    context.stats.count("websocket.new_thing", 2)
    (sample,) = families(context)["channelsq_websocket_new_thing"].samples
    assert (sample.name, sample.value) == ("channelsq_websocket_new_thing_total", 2)


def test_depths_that_are_not_known_are_left_out() -> None:
    assert list(depth_gauge({})) == []
    (family,) = depth_gauge({"http.request": 5})
    (sample,) = family.samples
    assert (sample.name, sample.labels, sample.value) == ("channelsq_queue_messages", {"channel": "http.request"}, 5)


def test_the_numbers_of_several_processes_are_kept_apart() -> None:
    hubs = {1: new_hub(), 3: new_hub()}
    hubs[1].stats.count("websocket.accepted", 2)
    hubs[3].stats.count("websocket.accepted", 5)
    hubs[3].stats.refuse("http", 503, "ending")
    assert hubs[1].measures is not None
    hubs[1].measures.answered(200, 0.9)
    families = merged({number: packed(Collector(context).collect()) for number, context in hubs.items()})
    assert len({family.name for family in families}) == len(families)
    values = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert values["channelsq_websocket_accepted_total", "1"] == 2
    assert values["channelsq_websocket_accepted_total", "3"] == 5
    assert values["channelsq_refused_total", "http", "503", "ending", "3"] == 1
    assert ("channelsq_refused_total", "http", "503", "ending", "1") not in values
    assert values["channelsq_http_request_seconds_count", "1"] == 1
    assert values["channelsq_http_request_seconds_count", "3"] == 0
