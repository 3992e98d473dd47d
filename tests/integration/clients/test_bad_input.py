"""Broken and hostile clients: each gets a clear answer, and the server serves the next one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from tests.support.interfaces import Call, RawClient, Site, accept, echo, frame, running
from tests.support.versions import release
from tests.support.waiting import wait_until

HANDSHAKE = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def hello(call: Call) -> None:
    call.reply(status=200, headers=[], content=b"hello", more_content=False)


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    config = InterfaceConfig(
        max_message_size=10_000, header_timeout=1.0, max_header_size=20_000, limits=Limits(close_timeout=1.0)
    )
    handlers = {"http.request": hello, "websocket.connect": accept, "websocket.receive": echo}
    with running(handlers, config) as site:
        yield site


@pytest.fixture
def site(shared: Site, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    """A server that must still serve both kinds of client afterwards, and must not have failed inside."""
    yield shared
    assert httpx.get(shared.url).text == "hello"
    with connect(shared.ws_url) as client:
        client.send("still there?")
        assert client.recv(timeout=10) == "still there?"
    wait_until(lambda: not shared.server.context.sockets, "every socket to be done")
    assert shared.application.errors == []
    assert [record for record in caplog.get_records("call") if record.exc_info] == []


#: Values of a header that is there too often for websockets.
MANY = "y\r\nX: " + "\r\nX: ".join("y" * 500)


def head(method: str = "GET", target: str = "/", version: str = "HTTP/1.1", **changes: str | None) -> bytes:
    """A WebSocket handshake with changes; None leaves a header out."""
    headers = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {target} {version}", *lines, "", ""]).encode("latin-1")


def answer_to(site: Site, data: bytes) -> bytes:
    with site.raw() as client:
        client.send(data)
        answer = client.read_to_end()
    assert b"Traceback" not in answer
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03 garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nA: \x00\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, on a port without
    ],
)
def test_malformed_http_is_400(site: Site, data: bytes) -> None:
    answer = answer_to(site, data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"400 Bad Request\n")


def test_a_broken_chunked_body(site: Site) -> None:
    answer = answer_to(site, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
    assert answer == b"" or b" 400 " in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 30_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 30_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    ],
)
def test_headers_without_end_are_431(site: Site, data: bytes) -> None:
    assert b" 431 " in answer_to(site, data)


def test_a_slow_head_is_408(site: Site) -> None:
    with site.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHos")
        assert b" 408 " in client.read_to_end()
    with site.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_until(b"hello")
        client.send(b"GET /second HTTP")
        assert b" 408 " in client.read_to_end()


def test_a_connection_that_sends_nothing_is_closed(site: Site) -> None:
    with site.raw() as client:
        assert b" 408 " in client.read_to_end()


def test_a_body_that_stops_is_408_and_does_not_reach_a_worker() -> None:
    with running({"http.request": hello}, InterfaceConfig(http_timeout=0.5)) as site:
        assert b" 408 " in answer_to(site, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        assert site.application.messages("http.request") == []


def test_a_long_body_that_stops_is_504() -> None:
    with running({}, InterfaceConfig(http_timeout=0.5)) as site, site.raw() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n" + b"x" * 300_000)
        assert b" 504 " in client.read_until(b"\r\n\r\n")
        (request,) = site.application.messages("http.request")
        chunks: list[dict[str, Any]] = []
        while not chunks or not chunks[-1]["closed"]:
            chunk = site.layer.receive([request["body_channel"]], block=True)[1]
            assert chunk is not None
            chunks.append(chunk)


def test_headers_that_no_message_holds_are_413() -> None:
    with running({"http.request": hello}, layer_config={"message_size_limit": 10_000}) as site:
        assert httpx.get(site.url, headers={"X-Big": "x" * 15_000}).status_code == 413
        with site.raw() as client:
            assert b" 431 " in client.upgrade("/", "X-Big: " + "x" * 8_000, "X-More: " + "x" * 8_000)
        assert httpx.post(site.url, content=b"x" * 50_000).status_code == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(Sec_WebSocket_Key=None), 400),
        (head(Sec_WebSocket_Key="too short"), 400),
        (head(Sec_WebSocket_Key="dGhlIHNhbXBsZQ=="), 400),
        (head(Sec_WebSocket_Version=None), 400),
        (head(Sec_WebSocket_Version="12"), 400),
        (head(method="POST"), 405),
        (head(Content_Length="5"), 400),
        (head(Sec_WebSocket_Protocol="a,,b c"), 400),
        (head(Sec_WebSocket_Extensions="permessage-deflate; ="), 400),
        (head(Origin="a\r\nOrigin: b"), 400),
        (head(X="x" * 70_000), 431),
        (head(X=MANY), 431),
        (head(target="/" + "x" * 70_000), 431),
    ],
)
def test_bad_handshakes_are_refused(site: Site, data: bytes, status: int) -> None:
    if release("websockets") < (17,) and data in (head(method="POST"), head(X=MANY)):
        status = 400  # websockets tells these apart since 17
    assert answer_to(site, data).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("cookie", ["x" * 9_000, "x" * 12_000])
@pytest.mark.parametrize("target", ["/", "/" + "y" * 3_000])
def test_a_handshake_may_have_as_long_lines_as_a_page(site: Site, cookie: str, target: str) -> None:
    with site.raw() as client:
        client.send(head(target=target, Cookie=f"a={cookie}"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        client.send(frame(0x1, b"small"))
        assert client.read_frame() == (0x1, b"small")


@pytest.mark.parametrize(
    "data",
    [head(version="HTTP/1.0", Upgrade="h2c"), head(Upgrade="websocket, other"), head(Connection="close")],
)
def test_what_is_no_handshake_is_an_ordinary_request(site: Site, data: bytes) -> None:
    with site.raw() as client:
        client.send(data)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def close_code_after(client: RawClient, data: bytes) -> int:
    client.upgrade()
    client.send(data)
    return client.read_close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(0x1, b"plain", mask=False), 1002),
        (frame(0x3, b"reserved"), 1002),
        (frame(0xB, b"reserved"), 1002),
        (frame(0x1, b"bits", rsv=4), 1002),
        (frame(0x1, b"bits", rsv=1), 1002),
        (frame(0x9, b"x" * 126), 1002),
        (frame(0x9, b"x", fin=False), 1002),
        (frame(0x0, b"nothing to continue"), 1002),
        (frame(0x1, b"a", fin=False) + frame(0x1, b"b"), 1002),
        (frame(0x8, b"\x03"), 1002),
        (frame(0x8, (999).to_bytes(2, "big")), 1002),
        (frame(0x8, (1000).to_bytes(2, "big") + b"\xff\xfe"), 1007),
        (frame(0x1, b"\xff\xfe"), 1007),
        (frame(0x1, b"\xed\xa0\x80"), 1007),  # a surrogate
        (frame(0x1, b"\xe2\x82", fin=False) + frame(0x0, b"!"), 1007),
        (frame(0x2, b"x" * 10_001), 1009),
        (frame(0x2, b"x" * 9_000, fin=False) + frame(0x0, b"x" * 9_000), 1009),
        (b"\x82\xff" + (2**62).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0", 1009),
    ],
)
def test_bad_frames_close_with_a_code(site: Site, data: bytes, code: int) -> None:
    before = len(site.application.messages("websocket.disconnect"))
    with site.raw() as client:
        assert close_code_after(client, data) == code
        client.read_to_end()
    assert site.application.wait_for("websocket.disconnect", before + 1)[-1]["code"] == code


def test_the_largest_message_passes_and_one_more_byte_does_not(site: Site) -> None:
    for compression in (None, "deflate"):
        with connect(site.ws_url, compression=compression) as client:
            client.send("x" * 10_000)
            assert client.recv(timeout=10) == "x" * 10_000
            client.send("x" * 10_001)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009


def test_an_oversized_frame_is_told_while_it_is_still_sent(site: Site) -> None:
    with site.raw() as client:
        client.upgrade()
        client.send(frame(0x2, b"x" * 400_000))
        assert client.read_close() == 1009


def test_a_frame_that_no_message_holds_is_1009() -> None:
    with running({"websocket.connect": accept}, layer_config={"message_size_limit": 5_000}) as site:
        with connect(site.ws_url) as client:
            client.send("x" * 6_000)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        site.application.wait_for("websocket.disconnect")
        assert site.application.messages("websocket.receive") == []


def test_good_frames_before_a_bad_one_are_delivered(site: Site) -> None:
    before = len(site.application.messages("websocket.receive"))
    with site.raw() as client:
        client.upgrade()
        client.send(frame(0x1, b"one") + frame(0x1, b"two") + frame(0x3, b""))
        client.read_to_end()
    received = site.application.wait_for("websocket.receive", before + 2)
    assert [message["text"] for message in received[before:]] == ["one", "two"]


def test_frames_before_the_handshake_is_answered_wait(site: Site) -> None:
    """They may not be sent; if they are, they neither get lost half-way nor confuse the handshake."""
    with site.raw() as client:
        client.send(head())
        client.send(frame(0x9, b"early"))
        assert b"101 Switching" in client.read_until(b"\r\n\r\n")
        assert client.read_frame() == (0xA, b"early")


def test_half_open_clients_do_not_hold_anything_up(site: Site) -> None:
    with site.raw() as client:
        client.upgrade()
        client.send(b"\x81\xfe")  # the beginning of a frame, and then nothing
        with connect(site.ws_url) as other:
            other.send("x")
            assert other.recv(timeout=10) == "x"


def test_random_bytes(site: Site) -> None:
    source = random.Random(20260101)
    for round_number in range(60):
        with site.raw() as client:
            if round_number % 2:
                client.upgrade()
            client.socket.settimeout(3)
            try:
                client.send(source.randbytes(source.randrange(1, 2000)))
                client.socket.shutdown(1)
                client.read_to_end()
            except ConnectionError:
                pass
