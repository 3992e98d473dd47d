from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import signals
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import async_only_middleware

from channelsq.exceptions import ResponseLater
from channelsq.handler import AsgiHandler, AsgiRequest, ViewConsumer
from channelsq.message import Message
from tests.support import handler_urls, http_channel
from tests.support.fakes.interface import FakeInterface
from tests.support.http_channel import django_settings
from tests.support.logs import action_of


@pytest.fixture
def interface() -> Iterator[FakeInterface]:
    handler_urls.events.clear()
    with http_channel.interface() as interface:
        yield interface


def test_get(interface: FakeInterface) -> None:
    response = interface.get("/")
    assert (response.status, response.body, response.complete) == (200, b"root", True)
    assert response.header("Content-Type") == "text/html; charset=utf-8"
    assert response.header("Content-Length") == "4"
    assert len(response.messages) == 1
    assert set(response.messages[0]) == {"status", "headers", "content", "more_content"}


def test_form_post_and_json(interface: FakeInterface) -> None:
    message = interface.message(
        "/echo/", "POST", body=b"a=1&a=%C3%A9", headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert interface.run(message).json()["POST"] == {"a": ["1", "é"]}
    message = interface.message(
        "/json/", "POST", body=b'{"numbers": [1, 2]}', headers={"content-type": "application/json"}
    )
    assert interface.run(message).json() == {"sum": 3}


def test_root_path_reaches_reverse(interface: FakeInterface) -> None:
    answer = interface.get("/app/echo/", root_path="/app").json()
    assert answer["reversed"] == "/app/echo/"
    assert answer["path_info"] == "/echo/"
    assert interface.get("/echo/").json()["reversed"] == "/echo/" == reverse("echo")


def test_cookies_have_a_header_each(interface: FakeInterface) -> None:
    cookies = interface.get("/cookies/").all("set-cookie")
    assert cookies[0] == "a=1; HttpOnly; Path=/; SameSite=Lax"
    assert cookies[1] == 'b="two words\\073 and more"; Path=/x'
    assert cookies[2].startswith('c=""; expires=Thu, 01 Jan 1970')
    assert len(cookies) == 3


def test_session(interface: FakeInterface) -> None:
    first = interface.get("/visits/")
    cookie = (first.header("set-cookie") or "").partition(";")[0]
    assert first.body == b"1"
    assert interface.get("/visits/", headers={"cookie": cookie}).body == b"2"


def test_csrf(interface: FakeInterface) -> None:
    form = interface.get("/form/")
    cookie = (form.header("set-cookie") or "").partition(";")[0]
    headers = {"cookie": cookie, "content-type": "application/x-www-form-urlencoded"}
    refused = interface.run(interface.message("/form/", "POST", body=b"text=hi", headers=dict(headers)))
    assert refused.status == 403
    assert b"CSRF" in refused.body
    token = form.body.decode()
    body = f"text=hi&csrfmiddlewaretoken={token}".encode()
    assert interface.run(interface.message("/form/", "POST", body=body, headers=dict(headers))).body == b"hi"


def test_streaming(interface: FakeInterface) -> None:
    response = interface.get("/stream/")
    assert [message["content"] for message in response.messages] == [b"one ", "två ".encode(), b"three", b""]
    assert [message["more_content"] for message in response.messages] == [True, True, True, False]


def test_asynchronous_streaming_comes_part_by_part(interface: FakeInterface) -> None:
    message = interface.message("/async-stream/", query=b"n=3")
    seen = [(content["content"], len(handler_urls.events)) for content in AsgiHandler()(message)]
    assert seen == [(b"0 ", 1), (b"1 ", 2), (b"2 ", 3), (b"", 4)]
    assert handler_urls.events[-1] == "closed"


def test_asynchronous_streaming_that_is_left_alone_is_closed(interface: FakeInterface) -> None:
    responses = AsgiHandler()(interface.message("/async-stream/", query=b"n=1000000"))
    assert next(responses)["content"] == b"0 "
    responses.close()
    assert handler_urls.events == ["part 0", "closed"]


def test_file_response(interface: FakeInterface) -> None:
    response = interface.get("/file/")
    assert response.body == Path(handler_urls.__file__).read_bytes()
    assert response.header("content-disposition") == 'attachment; filename="urls.txt"'
    assert response.header("content-length") == str(len(response.body))
    assert interface.get("/memory-file/").header("content-type") == "application/pdf"
    big = interface.get("/big-file/")
    assert big.body == bytes(range(256)) * 4096 * 3
    assert max(len(message["content"]) for message in big.messages) == AsgiHandler.chunk_size


def test_head_has_headers_and_no_content(interface: FakeInterface) -> None:
    for path in ("/big/", "/file/", "/long-stream/"):
        get = interface.run(interface.message(path, query=b"n=9"))
        handler_urls.events.clear()
        head = interface.run(interface.message(path, "HEAD", query=b"n=9"))
        assert (head.status, head.body, len(head.messages)) == (200, b"", 1)
        assert head.header("content-length") == get.header("content-length")
        assert not [event for event in handler_urls.events if event.startswith("part")]


def test_responses_that_have_no_body(interface: FakeInterface) -> None:
    response = interface.get("/no-content/")
    assert (response.status, response.body, response.header("content-length")) == (204, b"", None)
    response = interface.get("/not-modified/")
    assert (response.status, response.body, response.header("etag")) == (304, b"", '"x"')


def test_asynchronous_view(interface: FakeInterface) -> None:
    assert interface.get("/async/").body == b"async"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing-here/", 404),
        ("/not-found/", 404),
        ("/forbidden/", 403),
        ("/suspicious/", 400),
        ("/error/", 500),
        ("/none/", 500),
    ],
)
def test_error_pages(interface: FakeInterface, path: str, status: int) -> None:
    response = interface.get(path)
    assert response.status == status
    assert response.complete
    assert b"Traceback" not in response.body
    assert b"the view failed" not in response.body
    with django_settings(DEBUG=True):
        response = interface.get(path)
    assert response.status == status
    if path == "/error/":
        assert b"the view failed" in response.body
        assert b"ZeroDivisionError" in response.body


def test_wrong_host(interface: FakeInterface) -> None:
    message = interface.message("/echo/", headers={"host": "evil.example"})
    assert interface.run(message).status == 400


@pytest.mark.parametrize("change", [{"path": b"/\xff/"}, {"headers": 5}, {"headers": [[b"content-length", b"x"]]}])
def test_bad_messages_get_400(
    interface: FakeInterface, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    message = interface.message()
    message.content.update(change)
    response = interface.run(message)
    assert (response.status, response.body, response.complete) == (400, b"", True)
    record = caplog.records[-1]
    assert (record.name, action_of(record), record.levelname) == ("channelsq.http", "bad_request", "WARNING")


def test_body_too_slow_gets_408(interface: FakeInterface, caplog: pytest.LogCaptureFixture) -> None:
    class Impatient(AsgiRequest):
        body_receive_timeout = 0.01

    class Handler(AsgiHandler):
        request_class = Impatient

    class Consumer(ViewConsumer):
        handler_class = Handler

    interface.layer.block_timeout = 0.01  # type: ignore[misc]
    message = interface.message("/x/", "POST", body_channel=interface.layer.new_channel("http.request.body?"))
    assert interface.run(message, Consumer()).status == 408
    assert action_of(caplog.records[-1]) == "request_timeout"


def test_client_that_leaves_during_its_body_gets_nothing(
    interface: FakeInterface, caplog: pytest.LogCaptureFixture
) -> None:
    finished = _count(signals.request_finished)
    channel = interface.layer.new_channel("http.request.body?")
    message = interface.message("/x/", "POST", body_channel=channel)
    interface.layer.send(channel, {"closed": True})
    with caplog.at_level(logging.INFO):
        assert interface.run(message).messages == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert len(finished) == 1


def _count(signal: Any) -> list[Any]:
    """A list that grows by the sender with each sending; the receiver dies with it."""

    class Calls(list[Any]):
        def __call__(self, sender: Any, **kwargs: Any) -> None:
            self.append(sender)

    calls = Calls()
    signal.connect(calls)
    return calls


def test_signals_and_closing(interface: FakeInterface) -> None:
    started, finished = _count(signals.request_started), _count(signals.request_finished)
    closed = []

    class Handler(AsgiHandler):
        def get_response(self, request: HttpRequest) -> HttpResponseBase:
            response = HttpResponse("mine")
            response._resource_closers.append(lambda: closed.append(request))  # type: ignore[attr-defined]
            return response

    assert [content["content"] for content in Handler()(interface.message())] == [b"mine"]
    assert started == [Handler]
    assert finished == [Handler]
    assert len(closed) == 1


@pytest.mark.parametrize("settings", [{}, {"DEBUG": True}])
def test_response_later(interface: FakeInterface, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    finished = _count(signals.request_finished)
    message = interface.message("/later/")
    with django_settings(**settings):
        assert interface.run(message).messages == []
    assert caplog.records == []
    assert len(finished) == 1
    _, sent = interface.layer.receive(["somewhere"])
    assert sent == {"answer_to": str(message.reply_channel)}


def test_response_later_from_get_response(interface: FakeInterface) -> None:
    class Handler(AsgiHandler):
        def get_response(self, request: HttpRequest) -> HttpResponseBase:
            raise ResponseLater

    class Consumer(ViewConsumer):
        handler_class = Handler

    assert interface.run(interface.message(), Consumer()).messages == []


def test_a_handler_that_fails_tells_the_client_and_fails(interface: FakeInterface) -> None:
    finished = _count(signals.request_finished)
    consumer = ViewConsumer()
    message = interface.message("/error/")
    with django_settings(DEBUG_PROPAGATE_EXCEPTIONS=True), pytest.raises(ZeroDivisionError):
        consumer(message)
    response = interface.responses[str(message.reply_channel)]
    assert (response.status, response.body, response.complete) == (500, b"500 Internal Server Error", True)
    assert len(finished) == 1
    assert interface.run(interface.message("/"), consumer).body == b"root"


def test_a_view_that_wants_to_end_its_worker_is_answered_for(interface: FakeInterface) -> None:
    message = interface.message("/leave/")
    with pytest.raises(SystemExit):
        ViewConsumer()(message)
    response = interface.responses[str(message.reply_channel)]
    assert (response.status, response.complete) == (500, True)


def test_a_stream_that_fails_is_cut_off(interface: FakeInterface) -> None:
    message = interface.message("/broken-stream/")
    with pytest.raises(RuntimeError, match="the stream broke"):
        ViewConsumer()(message)
    response = interface.responses[str(message.reply_channel)]
    assert response.body == b"begun"
    assert response.complete
    assert response.aborted
    assert handler_urls.events == ["closed"]


def test_middleware_that_cannot_be_loaded(interface: FakeInterface) -> None:
    message = interface.message("/")
    with django_settings(MIDDLEWARE=["nowhere.Middleware"]), pytest.raises(ImportError, match="nowhere"):
        ViewConsumer()(message)
    assert interface.responses[str(message.reply_channel)].status == 500


def test_a_message_nobody_waits_for(interface: FakeInterface) -> None:
    message = Message({"path": "/", "method": "GET"}, "http.request", interface.wrapper)
    with pytest.raises(ValueError, match="reply_channel"):
        ViewConsumer()(message)


def test_chunk_bytes() -> None:
    class Small(AsgiHandler):
        chunk_size = 4

    assert list(Small.chunk_bytes(b"")) == [(b"", True)]
    assert list(Small.chunk_bytes(b"1234")) == [(b"1234", True)]
    assert list(Small.chunk_bytes(b"123456789")) == [(b"1234", False), (b"5678", False), (b"9", True)]


def test_encode_response() -> None:
    with django_settings():
        response = HttpResponse("é", status=201, headers={"X-Own": "1"}, content_type="text/plain")
        assert list(AsgiHandler.encode_response(response)) == [
            {
                "status": 201,
                "headers": [(b"X-Own", b"1"), (b"Content-Type", b"text/plain")],
                "content": "é".encode(),
                "more_content": False,
            }
        ]


def test_a_response_says_itself_whether_it_streams(interface: FakeInterface) -> None:
    streaming = StreamingHttpResponse([b"a", b"b"])
    assert [message["content"] for message in AsgiHandler.encode_response(streaming)] == [b"a", b"b", b""]
    wrong = StreamingHttpResponse([b"a"])
    wrong.streaming = False
    with pytest.raises(AttributeError, match="content"):
        list(AsgiHandler.encode_response(wrong))


def test_a_streaming_response_of_ones_own_iter(interface: FakeInterface) -> None:
    class Mine(StreamingHttpResponse):
        def __iter__(self) -> Iterator[bytes]:
            yield b"mine"

    assert [message["content"] for message in AsgiHandler.encode_response(Mine([b"other"]))] == [b"mine", b""]


def test_the_names_of_channels_1(interface: FakeInterface) -> None:
    assert AsgiHandler.request_class is AsgiRequest
    assert ViewConsumer.handler_class is AsgiHandler
    assert isinstance(ViewConsumer().handler, AsgiHandler)

    class Handler(AsgiHandler):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

        def get_response(self, request: HttpRequest) -> HttpResponseBase:
            return HttpResponse(self.text)

    class Consumer(ViewConsumer):
        def __init__(self) -> None:
            self.handler = Handler("made in its own way")

    assert interface.run(interface.message(), Consumer()).body == b"made in its own way"


def test_exceptions_of_views_go_through_the_middleware_but_response_later_does_not(interface: FakeInterface) -> None:
    middleware = [f"{__name__}.Rescue"]
    with django_settings(MIDDLEWARE=middleware):
        assert interface.get("/error/").body == b"rescued from ZeroDivisionError"
        assert interface.get("/later/").messages == []


class Rescue:
    """Middleware that answers for views that fail."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        return HttpResponse(f"rescued from {type(exception).__name__}")


@async_only_middleware
def mark(get_response: Any) -> Any:
    """Middleware that is asynchronous alone."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await get_response(request)
        response["X-Marked"] = "yes"
        return response

    return middleware


@pytest.mark.parametrize("path", ["/", "/async/", "/stream/", "/async-stream/?n=2"])
def test_asynchronous_middleware(interface: FakeInterface, path: str) -> None:
    path, _, query = path.partition("?")
    with django_settings(MIDDLEWARE=[f"{__name__}.mark"]):
        response = interface.get(path, query=query.encode())
    assert response.header("X-Marked") == "yes"
    assert response.complete
    assert response.body in (b"root", b"async", "one två three".encode(), b"0 1 ")


@pytest.mark.parametrize("middleware", [[], ["Rescue"], ["mark"]], ids=["none", "synchronous", "asynchronous"])
def test_response_later_from_an_asynchronous_view(
    interface: FakeInterface, middleware: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with django_settings(MIDDLEWARE=[f"{__name__}.{name}" for name in middleware]):
        assert interface.get("/async-later/").messages == []
    assert caplog.records == []


def test_a_form_in_another_charset_is_djangos_400(interface: FakeInterface) -> None:
    headers: dict[str, str | bytes] = {"content-type": "application/x-www-form-urlencoded; charset=koi8-r"}
    assert interface.run(interface.message("/echo/", "POST", body=b"a=%D4", headers=headers)).status == 400


def test_one_consumer_serves_many_threads(interface: FakeInterface) -> None:
    loads = []

    class Handler(AsgiHandler):
        def load_middleware(self, is_async: bool = False) -> None:
            loads.append(threading.get_ident())
            super().load_middleware(is_async)

    class Consumer(ViewConsumer):
        handler_class = Handler

    consumer = Consumer()
    messages = [interface.message("/echo/", query=f"n={n}".encode()) for n in range(32)]
    together = threading.Barrier(8)

    def work(mine: list[Message]) -> None:
        together.wait(10)
        for message in mine:
            consumer(message)

    threads = [threading.Thread(target=work, args=(messages[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, message in enumerate(messages):
        assert interface.responses[str(message.reply_channel)].json()["GET"] == {"n": [str(n)]}
    assert len(loads) == 1
