"""Metrics pages as the dashboard reads them."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from channelsq.contrib.dashboard import metrics_pages
from channelsq.contrib.dashboard.metrics_pages import COUNTERS, GAUGES, numbers_of, read_pages
from channelsq.interface.pages.metric_names import METRICS

PAGE = """\
# HELP channelsq_websockets WebSockets.
# TYPE channelsq_websockets gauge
channelsq_websockets{process="1"} 3.0
channelsq_websockets{process="2"} 4.0
# TYPE channelsq_refused_total counter
channelsq_refused_total{process="1",protocol="http",status="413",reason="too_large"} 2.0
channelsq_refused_total{process="2",protocol="http",status="413",reason="too_large"} 5.0
# TYPE channelsq_reply_seconds histogram
channelsq_reply_seconds_bucket{channel="websocket.receive",le="0.1"} 7.0
channelsq_reply_seconds_bucket{channel="websocket.receive",le="+Inf"} 9.0
channelsq_reply_seconds_sum{channel="websocket.receive"} 0.5
process_open_fds 12.0
"""


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    """Serve one body on a free port; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/-/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_metrics_that_are_read_exist() -> None:
    by_name = {each.shown: each for each in METRICS}
    for name, labels in COUNTERS.items():
        metric = by_name[name.removesuffix("_bucket")]
        assert {*labels} - {"le"} == {*metric.labels}
        assert metric.kind == ("histogram" if name.endswith("_bucket") else "counter")
    assert {by_name[name].kind for name in GAUGES} == {"gauge"}


def test_values_of_processes_are_added_up_and_other_metrics_left_out() -> None:
    assert numbers_of(PAGE) == {
        "channelsq_websockets": 7.0,
        "channelsq_refused_total|http|413|too_large": 7.0,
        "channelsq_reply_seconds_bucket|websocket.receive|0.1": 7.0,
        "channelsq_reply_seconds_bucket|websocket.receive|+Inf": 9.0,
    }


def test_the_numbers_of_a_page_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_pages, "_MOST_NUMBERS", 3)
    assert len(numbers_of(PAGE)) == 3


def test_pages_are_read_in_order_and_a_bad_one_says_why() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/-/metrics"
        with ExitStack() as stack:
            answers = [(200, PAGE.encode()), (404, b""), (302, b""), (200, b"up 1\n"), (200, b"\xff\xfe{")]
            good, *others = [stack.enter_context(serving(status, body)) for status, body in answers]
            found = read_pages([good, away, *others])
    assert [bool(each.numbers) for each in found] == [True, False, False, False, False, False]
    problems = [each.problem for each in found]
    assert problems[0] == ""
    assert problems[1].startswith(f"the metrics page {away} cannot be read: ")
    assert "status 404; is the interface server run with --metrics?" in problems[2]
    assert "status 302" in problems[3]  # not followed
    assert "it has no channelsq_websockets" in problems[4]
    assert "cannot be read" in problems[5]
    assert read_pages([]) == []


def test_a_page_that_is_too_large_or_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_pages, "LARGEST", 100)
    with serving(200, PAGE.encode()) as url:
        (large,) = read_pages([url])
    assert "it is larger than" in large.problem
    monkeypatch.setattr(metrics_pages, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (late,) = read_pages([f"http://127.0.0.1:{silent.getsockname()[1]}/-/metrics"])
    assert "cannot be read" in late.problem
