from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, QueryDict

from channelsq.exceptions import RequestAborted, RequestTimeout, ResponseLater
from channelsq.handler import AsgiRequest
from channelsq.message import Message
from tests.support import http_channel
from tests.support.fakes.interface import FakeInterface
from tests.support.http_channel import django_settings, multipart


@pytest.fixture
def interface() -> Iterator[FakeInterface]:
    with http_channel.interface() as interface:
        yield interface


def test_what_a_request_says(interface: FakeInterface) -> None:
    message = interface.message(
        "/echo/ä/", "post", query=b"a=1&a=2&b=%C3%A9", headers={"x-own": "yes", "content-type": "text/plain"},
        body=b"hello", client=["198.51.100.7", 4711], server=["192.0.2.1", 8443], scheme="https",
    )  # fmt: skip
    request = AsgiRequest(message)
    assert isinstance(request, HttpRequest)
    assert (request.method, request.scheme, request.is_secure()) == ("POST", "https", True)
    assert (request.path, request.path_info, request.script_name) == ("/echo/ä/", "/echo/ä/", "")
    assert request.GET.getlist("a") == ["1", "2"]
    assert request.GET["b"] == "é"
    assert request.body == b"hello"
    assert request.read() == b"hello"
    assert request.content_type == "text/plain"
    assert request.headers["X-Own"] == "yes"
    assert request.reply_channel is message.reply_channel
    assert {
        key: request.META[key]
        for key in ("REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "QUERY_STRING",
                    "CONTENT_LENGTH", "CONTENT_TYPE", "SERVER_PROTOCOL", "PATH_INFO", "SCRIPT_NAME")
    } == {
        "REMOTE_ADDR": "198.51.100.7", "REMOTE_HOST": "198.51.100.7", "REMOTE_PORT": 4711,
        "SERVER_NAME": "192.0.2.1", "SERVER_PORT": "8443", "QUERY_STRING": "a=1&a=2&b=%C3%A9",
        "CONTENT_LENGTH": "5", "CONTENT_TYPE": "text/plain", "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": "/echo/ä/", "SCRIPT_NAME": "",
    }  # fmt: skip
    assert "HTTP_CONTENT_LENGTH" not in request.META


def test_the_least_that_makes_a_request(interface: FakeInterface) -> None:
    request = AsgiRequest(Message({"path": "/", "method": "GET"}, "http.request", interface.wrapper))
    assert request.reply_channel is None
    assert request.META["SERVER_NAME"] == "unknown"
    assert request.META["SERVER_PORT"] == "0"
    assert "REMOTE_ADDR" not in request.META
    assert request.body == b""
    assert dict(request.GET) == {}
    assert request.COOKIES == {}
    assert request.scheme == "http"


def test_a_unix_socket_has_no_port(interface: FakeInterface) -> None:
    request = AsgiRequest(interface.message(server=["/run/web.sock", None], client=None))
    assert request.META["SERVER_PORT"] == "0"


@pytest.mark.parametrize(
    ("root_path", "path", "path_info"),
    [
        ("", "/x/", "/x/"),
        ("/app", "/app/x/", "/x/"),
        ("/app/", "/app/x/", "/x/"),
        ("/app", "/app", "/"),
        ("/app", "/application/", "/application/"),
        (None, "/x/", "/x/"),
    ],
)
def test_path_below_the_root_path(interface: FakeInterface, root_path: str | None, path: str, path_info: str) -> None:
    request = AsgiRequest(interface.message(path, root_path=root_path))
    assert (request.path, request.path_info, request.META["PATH_INFO"]) == (path, path_info, path_info)
    assert request.META["SCRIPT_NAME"] == (root_path or "")


def test_force_script_name(interface: FakeInterface) -> None:
    with django_settings(FORCE_SCRIPT_NAME="/forced"):
        request = AsgiRequest(interface.message("/forced/x/", root_path="/app"))
    assert (request.script_name, request.path_info) == ("/forced", "/x/")


def test_headers_that_come_twice_and_spoofed_ones(interface: FakeInterface) -> None:
    headers = [
        [b"host", b"testserver"],
        [b"accept", b"text/html"],
        [b"accept", b"text/plain"],
        [b"cookie", b"a=1"],
        [b"cookie", "b=é".encode()],
        [b"x_forwarded_for", b"6.6.6.6"],
        [b"x-latin", b"\xe9"],
    ]
    request = AsgiRequest(_with_headers(interface, headers))
    assert request.META["HTTP_ACCEPT"] == "text/html,text/plain"
    assert request.COOKIES == {"a": "1", "b": "é"}
    assert "HTTP_X_FORWARDED_FOR" not in request.META
    assert request.META["HTTP_X_LATIN"] == "é"


def _with_headers(interface: FakeInterface, headers: Any) -> Message:
    message = interface.message()
    message["headers"] = headers
    return message


@pytest.mark.parametrize(
    "headers",
    [
        {b"host": b"testserver", b"content-type": b"text/plain", b"x-own": b"1"},
        {"Host": "testserver", "Content-Type": "text/plain", "X-Own": "1"},
    ],
)
def test_headers_as_a_dict(interface: FakeInterface, headers: Any) -> None:
    request = AsgiRequest(_with_headers(interface, headers))
    assert request.get_host() == "testserver"
    assert request.content_type == "text/plain"
    assert request.headers["x-own"] == "1"


def test_encoding_of_the_query_can_be_set(interface: FakeInterface) -> None:
    request = AsgiRequest(interface.message(query=b"q=%D4%C5%D3%D4"))
    request.encoding = "koi8-r"
    assert request.GET["q"] == "тест"


def test_encoding_that_is_set_after_the_query_was_read_has_it_read_again(interface: FakeInterface) -> None:
    request = AsgiRequest(interface.message(query=b"q=%D4%C5%D3%D4"))
    assert request.GET["q"] != "тест"
    request.encoding = "koi8-r"
    assert request.GET["q"] == "тест"


def test_encoding_that_is_set_after_the_body_was_read_is_the_forms(interface: FakeInterface) -> None:
    body, content_type = multipart({"title": "ä"}, "file", b"x")
    request = AsgiRequest(interface.message(method="POST", body=body, headers={"content-type": content_type}))
    assert request.body == body
    request.encoding = "latin-1"
    assert request.POST["title"] == "Ã¤"
    request.close()


def test_charset_of_the_content_type(interface: FakeInterface) -> None:
    for charset, text in (("koi8-r", "тест"), ("no-such-charset", "\ufffd\ufffd\ufffd\ufffd")):
        headers: dict[str, str | bytes] = {"content-type": f"text/plain; charset={charset}"}
        request = AsgiRequest(interface.message(query=b"q=%D4%C5%D3%D4", headers=headers))
        assert request.content_params == {"charset": charset}
        assert request.GET["q"] == text


def test_post_and_its_files_can_be_replaced(interface: FakeInterface) -> None:
    request = AsgiRequest(interface.message(method="POST"))
    request.POST = QueryDict("a=1")
    assert request.POST["a"] == "1"


def test_response_later_is_at_hand_for_views(interface: FakeInterface) -> None:
    assert AsgiRequest.ResponseLater is ResponseLater
    assert AsgiRequest(interface.message()).ResponseLater is ResponseLater


def test_a_websocket_handshake_is_a_get_request(interface: FakeInterface) -> None:
    content = {
        "path": "/chat/",
        "scheme": "wss",
        "headers": [[b"cookie", b"sessionid=x"]],
        "query_string": "a=b",
    }
    request = AsgiRequest(Message(content, "websocket.connect", interface.wrapper))
    assert (request.method, request.scheme, request.is_secure()) == ("GET", "https", True)
    assert request.COOKIES == {"sessionid": "x"}
    assert request.GET["a"] == "b"


def uploaded(request: AsgiRequest) -> UploadedFile[Any]:
    file = request.FILES["file"]
    assert isinstance(file, UploadedFile)
    return file


# -- bodies -----------------------------------------------------------------------------------


def test_form_and_files(interface: FakeInterface) -> None:
    body, content_type = multipart({"title": "Ä"}, "file", b"\0\xff" * 10)
    request = AsgiRequest(interface.message(method="POST", body=body, headers={"content-type": content_type}))
    assert request.POST["title"] == "Ä"
    assert uploaded(request).read() == b"\0\xff" * 10
    request.close()


def test_body_through_its_channel(interface: FakeInterface) -> None:
    channel = interface.layer.new_channel("http.request.body?")
    message = interface.message(method="POST", body=b"one ", headers={"content-length": "13"}, body_channel=channel)
    interface.layer.send(channel, {"content": b"two ", "more_content": True})
    interface.layer.send(channel, {"content": b"three", "more_content": False})
    assert AsgiRequest(message).body == b"one two three"


def test_body_without_a_length_is_read_as_a_form(interface: FakeInterface) -> None:
    body, content_type = multipart({"title": "chunked"}, "file", b"content")
    message = interface.message(method="POST", body=body, headers={"content-type": content_type})
    message["headers"] = [pair for pair in message["headers"] if pair[0] != b"content-length"]
    request = AsgiRequest(message)
    assert request.POST["title"] == "chunked"
    assert uploaded(request).read() == b"content"


def test_upload_of_50_mb_from_another_thread(interface: FakeInterface) -> None:
    content = hashlib.sha256(b"seed").digest() * (50 * 1024 * 1024 // 32)
    body, content_type = multipart({"title": "big"}, "file", content)
    channel = interface.layer.new_channel("http.request.body?")
    size = 256 * 1024
    message = interface.message(
        "/upload/", "POST", body=body[:size], body_channel=channel,
        headers={"content-type": content_type, "content-length": str(len(body))},
    )  # fmt: skip

    def send_rest() -> None:
        for start in range(size, len(body), size):
            more = start + size < len(body)
            interface.layer.send(channel, {"content": body[start : start + size], "more_content": more})

    sender = threading.Thread(target=send_rest)
    sender.start()
    response = interface.run(message)
    sender.join()
    assert response.json() == {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "temporary": True,
        "title": "big",
    }


def test_body_over_the_memory_limit_goes_to_a_file(interface: FakeInterface) -> None:
    with django_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=10):
        request = AsgiRequest(interface.message(method="POST", body=b"x" * 11))
        stream: Any = request._stream
        assert stream._rolled
        assert request.read() == b"x" * 11
        request.close()
    assert request._stream.closed


def test_data_upload_max_memory_size_is_djangos(interface: FakeInterface) -> None:
    with django_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        request = AsgiRequest(interface.message(method="POST", body=b"x" * 11))
        with pytest.raises(RequestDataTooBig):
            request.body  # noqa: B018
        # It is about data, not about files.
        body, content_type = multipart({}, "file", b"y" * 100)
        headers: dict[str, str | bytes] = {"content-type": content_type}
        request = AsgiRequest(interface.message(method="POST", body=body, headers=headers))
        assert uploaded(request).size == 100


def test_body_that_stops(interface: FakeInterface) -> None:
    class Impatient(AsgiRequest):
        body_receive_timeout = 0.01

    interface.layer.block_timeout = 0.01  # type: ignore[misc]
    message = interface.message("/x/", "POST", body_channel=interface.layer.new_channel("http.request.body?"))
    with pytest.raises(RequestTimeout, match=r"POST /x/.*body_receive_timeout"):
        Impatient(message)


def test_client_that_leaves_during_its_body(interface: FakeInterface) -> None:
    channel = interface.layer.new_channel("http.request.body?")
    message = interface.message("/x/", "POST", body_channel=channel)
    interface.layer.send(channel, {"content": b"", "closed": True})
    with pytest.raises(RequestAborted, match="POST /x/"):
        AsgiRequest(message)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"path": None}, "'path'"),
        ({"path": 7}, "'path'"),
        ({"path": b"/\xff/"}, "utf-8"),
        ({"query_string": b"\xff"}, "utf-8"),
        ({"method": 3}, "'method'"),
        ({"body": "text"}, "'body'"),
        ({"client": "10.0.0.1"}, "'client'"),
        ({"server": [1, 2, 3]}, "'server'"),
        ({"headers": 5}, "'headers'"),
        ({"headers": "host"}, "'headers'"),
        ({"headers": ["host"]}, "header"),
        ({"headers": [[b"host", 5]]}, "header"),
        ({"headers": [[b"content-length", b"many"]]}, "'many'"),
        ({"headers": [[b"content-length", b"-1"]]}, "'-1'"),
        ({"headers": [[b"content-length", b"10"]], "body": b"five!"}, "5 bytes"),
        ({"headers": [[b"content-length", b"3"], [b"content-length", b"4"]], "body": b"abc"}, "'3,4'"),
    ],
)
def test_bad_messages(interface: FakeInterface, change: dict[str, Any], named: str) -> None:
    message = interface.message(method="POST")
    message.content.update(change)
    with pytest.raises(ValueError, match=named):
        AsgiRequest(message)


@pytest.mark.parametrize(("scheme", "told"), [("http", "http"), ("https", "https"), ("wss", "https"), (None, "http")])
def test_meta_tells_the_scheme_as_wsgi_does(interface: FakeInterface, scheme: str | None, told: str) -> None:
    """OpenTelemetry's instrumentation reads it."""
    assert AsgiRequest(interface.message("/", scheme=scheme)).META["wsgi.url_scheme"] == told


NON_ASCII = "/\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{SNOWMAN}/ 100%/"


@pytest.mark.parametrize("path", ["/plain/", NON_ASCII])
@pytest.mark.parametrize("names", ["old", "http"])
def test_opentelemetry_makes_a_url_of_meta(
    interface: FakeInterface, monkeypatch: pytest.MonkeyPatch, path: str, names: str
) -> None:
    """Its instrumentation of Django reads META as a WSGI server's; an error there would be every page's."""
    from opentelemetry.instrumentation._semconv import _StabilityMode
    from opentelemetry.instrumentation.wsgi import collect_request_attributes

    if names == "http":
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    meta = AsgiRequest(interface.message(path, query=b"q=1", headers={"host": "example.com"})).META
    told = collect_request_attributes(meta, _StabilityMode.HTTP if names == "http" else _StabilityMode.DEFAULT)
    if names == "http":
        assert (told["url.path"], told["url.query"], told["url.scheme"]) == (path, "q=1", "http")
    elif path.isascii():
        assert told["http.url"] == f"http://example.com{path}?q=1"
    else:
        assert told["http.target"] == "/%C3%B6%E2%98%83/%20100%25/?q=1"
