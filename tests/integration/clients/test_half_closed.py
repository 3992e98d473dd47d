"""Clients that end their side of the connection and wait, clients of HTTP/1.0, and clients that leave."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from tests.support import edge_urls
from tests.support.interfaces import Call, RawClient, Site, running
from tests.support.waiting import wait_until

SOON = Limits(half_closed=0.1)

go, ended = edge_urls.go, edge_urls.ended


def body_of(call: Call) -> bytes:
    """The whole body, the rest of it from its channel."""
    body: bytes = call["body"]
    more = call["body_channel"] is not None
    while more:
        _, chunk = call.layer.receive([call["body_channel"]], block=True)
        if chunk is not None:
            body += chunk["content"]
            more = chunk["more_content"]
    return body


def views(call: Call) -> None:
    """Answer as ``edge_urls`` does."""
    match call["path"].strip("/").split("/"):
        case ["slow"]:
            assert go.wait(10)
            call.reply(status=200, headers=[], content=b"slow")
        case ["echo"]:
            call.reply(status=200, headers=[], content=body_of(call))
        case ["stream"]:
            call.now(status=200, headers=[], content=b"one", more_content=True)
            assert go.wait(10)
            if call["query_string"]:
                call.now(content=b"", abort=True)
            else:
                call.now(content=b"two", more_content=True)
                call.now(content=b"", more_content=False)
        case [status]:
            call.reply(status=int(status), headers=[[b"Content-Length", b"7"]], content=b"content")


@pytest.fixture(scope="module", params=["channel", "direct"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    config = InterfaceConfig(http=request.param, limits=SOON)
    with override_settings(ROOT_URLCONF="tests.support.edge_urls"), running({"http.request": views}, config) as site:
        yield site


@pytest.fixture(autouse=True)
def nobody_goes_on() -> Iterator[None]:
    go.clear()
    ended.clear()
    yield
    go.set()


TORN = b"POST /echo/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"


def request(
    target: str = "/200/", method: str = "GET", *, version: str = "1.1", body: bytes = b"", **more: str
) -> bytes:
    headers = {"Host": "localhost", **more}
    if body:
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def half_close(client: RawClient, data: bytes) -> None:
    client.send(data)
    client.socket.shutdown(socket.SHUT_WR)


def answer(client: RawClient, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
    """The answer that comes, as another parser reads it."""
    response = http.client.HTTPResponse(client.socket, method=method)
    response.begin()
    return response.status, response.read(), response.headers


def at_end(client: RawClient) -> bool:
    return client.socket.recv(1) == b""


def peek(client: RawClient) -> bytes:
    return client.socket.recv(1, socket.MSG_PEEK)


# -- half-closed


def test_a_client_that_half_closes_gets_its_answer(site: Site) -> None:
    with site.raw() as client:
        half_close(client, request())
        assert answer(client)[:2] == (200, b"content")
        assert at_end(client)


@pytest.mark.parametrize("size", [1, 200_000, 800_000])
def test_a_whole_body_is_answered(site: Site, size: int) -> None:
    with site.raw() as client:
        half_close(client, request("/echo/", "POST", body=b"x" * size))
        assert answer(client)[:2] == (200, b"x" * size)
        assert at_end(client)


def test_a_body_in_chunks_is_answered(site: Site) -> None:
    with site.raw() as client:
        head = request("/echo/", "POST").replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        half_close(client, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert answer(client)[:2] == (200, b"abcde")
        assert at_end(client)


def test_a_head_is_answered(site: Site) -> None:
    with site.raw() as client:
        half_close(client, request(method="HEAD"))
        assert answer(client, "HEAD")[:2] == (200, b"")
        assert at_end(client)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_takes_long(site: Site, version: str) -> None:
    with site.raw() as client:
        half_close(client, request("/slow/", version=version))
        assert peek(client) == b"H"  # sent ahead
        go.set()
        assert answer(client)[:2] == (200, b"slow")
        assert at_end(client)


def test_a_stream_goes_on(site: Site) -> None:
    with site.raw() as client:
        half_close(client, request("/stream/"))
        client.read_until(b"\r\n3\r\none\r\n")
        assert client.read(1) == b"0"  # sent ahead
        go.set()
        rest = client.read_to_end()
        assert rest.lstrip(b"0") == b"3\r\ntwo\r\n0\r\n\r\n"


def test_requests_in_a_row_are_answered_in_their_order(site: Site) -> None:
    posts = [request("/echo/", "POST", body=b"%d" % number) for number in range(5)]
    with site.raw() as client:
        half_close(client, b"".join(posts))
        answers = client.read_to_end()
    assert [line[-1:] for line in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("torn", [TORN, b"GET / HT"])
def test_a_torn_request_behind_a_whole_one_is_dropped(site: Site, torn: bytes) -> None:
    with site.raw() as client:
        half_close(client, request("/slow/") + torn)
        go.set()
        assert answer(client)[:2] == (200, b"slow")
        assert at_end(client)


@pytest.mark.parametrize("torn", [b"", b"GET / HT", TORN])
def test_who_asks_for_nothing_whole_has_left(site: Site, torn: bytes) -> None:
    with site.raw() as client:
        half_close(client, torn)
        assert at_end(client)


def test_what_is_refused_behind_a_request_is_refused(site: Site) -> None:
    with site.raw() as client:
        half_close(client, request("/slow/") + b"GET /\0 HTTP/1.1\r\n\r\n")
        assert peek(client) == b"H"
        go.set()
        answers = client.read_to_end()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"400"]


# -- clients that leave


def leave(client: RawClient) -> None:
    client.socket.close()


def test_who_leaves_before_the_answer_is_noticed(site: Site) -> None:
    requests = site.count("http.requests")
    with site.raw() as client:
        client.send(request("/slow/"))
        site.wait_for_count("http.requests", requests + 1)
        leave(client)
        wait_until(lambda: site.server.context.connections == 0, "the client's end")


def test_who_half_closes_first_and_leaves_later_is_noticed(site: Site) -> None:
    with site.raw() as client:
        half_close(client, request("/slow/"))
        assert client.read(1) == b"H"
        leave(client)
        wait_until(lambda: site.server.context.connections == 0, "the client's end")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_leaves_a_quiet_stream_is_noticed(site: Site, version: str) -> None:
    with site.raw() as client:
        client.send(request("/stream/", version=version))
        client.read_until(b"one")
        if version == "1.1":
            client.read_until(b"\r\n")
        leave(client)
        wait_until(lambda: site.server.context.connections == 0, "the client's end")
        if site.server.context.config.http == "direct":
            assert ended.wait(3)


def test_clients_at_a_unix_socket(tmp_path: Path) -> None:
    with running({"http.request": views}, InterfaceConfig(unix_socket=str(tmp_path / "socket"), limits=SOON)) as site:
        with site.raw() as client:
            half_close(client, request("/slow/"))
            assert peek(client) == b"H"
            leave(client)
            wait_until(lambda: site.server.context.connections == 0, "the client's end")
        with site.raw() as client:
            half_close(client, request("/slow/"))
            go.set()
            assert answer(client)[:2] == (200, b"slow")
            assert at_end(client)


# -- HTTP/1.0


def test_a_stream_to_http_1_0_ends_with_the_connection(site: Site) -> None:
    with site.raw() as client:
        client.send(request("/stream/", version="1.0", Connection="keep-alive"))
        head = client.read_until(b"\r\n\r\n").lower()
        assert head.count(b"\r\nconnection: close\r\n") == 1
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        assert client.read(3) == b"one"  # part by part
        go.set()
        assert client.read_to_end() == b"two"


def test_a_stream_to_http_1_0_that_breaks_off_is_reset(site: Site) -> None:
    with site.raw() as client:
        client.send(request("/stream/?broken", version="1.0"))
        client.read_until(b"\r\n\r\none")
        go.set()
        with pytest.raises(ConnectionResetError):
            client.socket.recv(100)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/200/", "/204/", "/304/", "/stream/"])
def test_other_answers_to_http_1_0(site: Site, target: str, method: str) -> None:
    go.set()
    with site.raw() as client:
        client.send(request(target, method, version="1.0"))
        head, _, content = client.read_to_end().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    expected = {"/200/": b"content", "/stream/": b"onetwo"}.get(target, b"")
    assert content == (b"" if method == "HEAD" else expected)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_streams_are_counted(site: Site, version: str) -> None:
    hub = site.server.context
    with site.raw() as left, site.raw() as client:
        for each in (left, client):
            each.send(request("/stream/", version=version))
            each.read_until(b"one")
        assert hub.streaming == 2
        leave(left)
        wait_until(lambda: hub.streaming == 1, "one to be gone")
        go.set()
        client.read_until(b"two")
        wait_until(lambda: hub.streaming == 0, "the other to be over")


def test_http_1_1_is_chunked_as_ever(site: Site) -> None:
    go.set()
    with site.raw() as client:
        client.send(request("/stream/"))
        _, content, headers = answer(client)
        assert (content, headers["transfer-encoding"]) == (b"onetwo", "chunked")
        client.send(request())  # on the same connection
        assert answer(client)[:2] == (200, b"content")


def test_the_servers_own_pages(site: Site) -> None:
    for version in ("1.0", "1.1"):
        with site.raw() as client:
            half_close(client, request("/-/health/live", version=version))
            assert answer(client)[:2] == (200, b"live\n")
            assert at_end(client)


def test_a_handshake_in_http_1_0_is_refused(site: Site, caplog: Any) -> None:
    upgrade: dict[str, Any] = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    with caplog.at_level("INFO"), site.raw() as client:
        client.send(request(version="1.0", **upgrade))
        assert answer(client)[0] == 400
    assert "proxy_http_version 1.1" in caplog.text
