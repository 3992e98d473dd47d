"""The number of streaming responses that run, and the refusal of others."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest
from django.core import signals
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core import streaming
from channelsq.core.streaming import Streaming, StreamingResponses
from channelsq.core.wire_version import announcement, read_announcement
from channelsq.handler import AsgiHandler, ViewConsumer
from channelsq.http import asgi_handler
from channelsq.layers import InMemoryChannelLayer
from channelsq.worker.embedded import EmbeddedWorker
from tests.support.fakes.interface import FakeInterface
from tests.support.http_channel import django_settings
from tests.support.logs import action_of
from tests.support.waiting import wait_until


@pytest.fixture
def responses(monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamingResponses]:
    """Those of the layer ``default``: one may run, and none is young for long."""
    monkeypatch.setattr(streaming, "YOUNG", 0.2)
    responses = StreamingResponses()
    responses.limit = 1
    monkeypatch.setitem(streaming._by_alias, "default", responses)
    yield responses
    assert responses.state.running == 0


def test_half_of_the_threads_may_stream() -> None:
    for threads, limit in ((1, 1), (2, 1), (3, 1), (8, 4), (100, 50)):
        streaming.set_limit("some", None, threads)
        assert streaming.responses_of("some").limit == limit
    streaming.set_limit("some", 7, 8)
    assert streaming.state_here()["some"] == (0, 7)


@pytest.mark.parametrize(("chosen", "warned"), [(None, False), (7, False), (8, True)])
def test_who_lets_streams_take_all_threads_is_warned(
    chosen: int | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    streaming.set_limit("some", chosen, 8)
    assert ("CONFIG['streaming_responses'] is 8, the threads are 8" in caplog.text) is warned


def test_an_embedded_worker_has_a_bound() -> None:
    for config, limit in (({}, 3), ({"streaming_responses": 5}, 5)):
        layer = ChannelLayerWrapper(InMemoryChannelLayer(**config), "embedded-here", [])
        worker = EmbeddedWorker(layer, 6)
        worker.start()
        worker.stop()
        assert streaming.responses_of("embedded-here").limit == limit


def test_one_too_many_is_refused_at_once_if_the_others_are_old(responses: StreamingResponses) -> None:
    with responses.one_more(ends=False) as first:
        assert first
        old = threading.Event()
        old.wait(0.25)
        with responses.one_more(ends=False) as second, responses.one_more(ends=True) as third:
            assert (second, third) == (False, True)
            assert responses.state == (2, 1)
    assert responses.refused == 1


def test_one_too_many_waits_for_a_young_one(responses: StreamingResponses) -> None:
    begun, done = threading.Event(), threading.Event()
    admitted: list[bool] = []

    def run() -> None:
        with responses.one_more(ends=False) as first:
            begun.set()
            admitted.append(first)
            done.wait(10)

    def run_next() -> None:
        with responses.one_more(ends=False) as second:
            admitted.append(second)

    streaming.YOUNG = 10  # the fixture gives it back
    threads = [threading.Thread(target=run), threading.Thread(target=run_next)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    wait_until(lambda: responses._waiting, "the second to wait")
    assert admitted == [True]
    done.set()
    for thread in threads:
        thread.join(10)
    assert admitted == [True, True]


def test_who_waits_is_next(responses: StreamingResponses) -> None:
    streaming.YOUNG = 10  # the fixture gives it back
    order: list[str] = []
    threads: list[threading.Thread] = []

    def run(name: str) -> None:
        with responses.one_more(ends=False) as admitted:
            order.append(name if admitted else "refused")

    with responses.one_more(ends=False):
        for name in "abcde":
            threads.append(threading.Thread(target=run, args=(name,)))
            threads[-1].start()
            wait_until(lambda: len(responses._waiting) == len(threads), "it to wait")
    run("last")
    for thread in threads:
        thread.join(10)
    assert order == [*"abcde", "last"]


def test_short_ones_beside_an_old_one(responses: StreamingResponses) -> None:
    responses.limit = 2
    refused: list[str] = []

    def run(name: str) -> None:
        for _ in range(30):
            with responses.one_more(ends=False) as admitted:
                threading.Event().wait(0.002)
                if not admitted:
                    refused.append(name)

    with responses.one_more(ends=False):
        threading.Event().wait(0.25)
        threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert refused == []


def test_without_a_bound_all_run() -> None:
    responses = StreamingResponses()
    with contextlib.ExitStack() as stack:
        assert all(stack.enter_context(responses.one_more(ends=False)) for _ in range(100))
        assert responses.state == (100, None)


# -- the handler


class Streams(AsgiHandler):
    """Answers as the path says."""

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        match request.path:
            case "/file/":
                return FileResponse(open(__file__, "rb"))
            case "/length/":
                return StreamingHttpResponse([b"abc"], headers={"Content-Length": "3"})
        return StreamingHttpResponse([b"abc"])


class StreamsConsumer(ViewConsumer):
    handler_class = Streams


def test_which_responses_are_refused(responses: StreamingResponses, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[object] = []

    def note(sender: object, **kwargs: object) -> None:
        closed.append(sender)

    signals.request_finished.connect(note)
    try:
        with django_settings(), responses.one_more(ends=False):
            interface, consumer = FakeInterface(), StreamsConsumer()
            threading.Event().wait(0.25)
            for path, method, status in (
                ("/file/", "GET", 200),
                ("/length/", "GET", 200),
                ("/", "HEAD", 200),
                ("/", "GET", 503),
                ("/", "POST", 503),
            ):
                answer = interface.run(interface.message(path, method), consumer)
                assert answer.status == status, path
                assert answer.complete
    finally:
        signals.request_finished.disconnect(note)
    assert closed == [Streams] * 5  # once each
    assert answer.header("Retry-After") == "5"
    with django_settings():
        assert interface.run(interface.message("/"), consumer).body == b"abc"


def test_the_log_names_the_setting_once_a_minute(
    responses: StreamingResponses, caplog: pytest.LogCaptureFixture
) -> None:
    asgi_handler._refusals.reset()
    with django_settings(), responses.one_more(ends=False):
        interface, consumer = FakeInterface(), StreamsConsumer()
        threading.Event().wait(0.25)
        for _ in range(3):
            assert interface.run(interface.message("/"), consumer).status == 503
    (line,) = (each for each in caplog.records if each.name == "channelsq.http")
    assert "CONFIG['streaming_responses']" in line.getMessage()
    assert action_of(line) == "too_many_streaming"


def test_a_response_counts_until_it_is_closed(responses: StreamingResponses) -> None:
    with django_settings():
        parts = Streams()(FakeInterface().message("/"))
        assert next(parts)["content"] == b"abc"
        assert responses.state.running == 1
        parts.close()


# -- what is told


def test_workers_announce_them() -> None:
    read = read_announcement("worker", "w", announcement({"streaming": 2, "streaming_limit": 4}))
    assert (read.streaming, read.streaming_limit) == (2, 4)
    for strange in (None, "2", -1, True, 2.5, [2]):
        read = read_announcement("worker", "w", json.dumps({"streaming": strange, "streaming_limit": strange}))
        assert (read.streaming, read.streaming_limit) == (None, None)


def test_processes_together() -> None:
    assert sum([Streaming(1, 2), Streaming(3, 4)], Streaming(0, 0)) == (4, 6)
    assert Streaming(1, 2) + Streaming(3, None) == (4, None)
