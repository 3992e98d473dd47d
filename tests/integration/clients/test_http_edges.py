"""The edges of RFC 9110 and 9112, byte by byte: what two servers could understand in two ways is served in none."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from django.test import override_settings

from channelsq.interface.basis.config import InterfaceConfig
from tests.support.interfaces import Call, RawClient, Site, accept, running
from tests.support.waiting import wait_until

HOST = b"Host: a\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def show(call: Call) -> None:
    """Answer with what came."""
    said = f"[{call['method']} {call['path']} {call['query_string'].decode()} {call['body'].decode()}]"
    call.reply(status=200, headers=[], content=said.encode(), more_content=False)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    handlers = {"http.request": show, "websocket.connect": accept}
    config = InterfaceConfig(max_header_size=20_000, header_timeout=5.0, http_timeout=5.0)
    with running(handlers, config) as site:
        yield site


@pytest.fixture(scope="module")
def direct() -> Iterator[Site]:
    with running({}, InterfaceConfig(http="direct", max_header_size=20_000, header_timeout=5.0)) as site:
        yield site


def get(target: bytes = b"/", headers: bytes = HOST, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return b"%s %s %s\r\n%s\r\n" % (method, target, version, headers)


def post(headers: bytes, body: bytes = b"") -> bytes:
    return get(headers=HOST + headers, method=b"POST") + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


def handshake(target: bytes = b"/", headers: bytes = b"") -> bytes:
    return get(
        target,
        b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + headers,
    )


REFUSED = {
    # Which host is meant (RFC 9112, section 3.2)
    "no host": (get(headers=b""), 400),
    "two hosts": (get(headers=b"Host: a\r\nHost: b\r\n"), 400),
    "the same host twice": (get(headers=b"Host: a\r\nHost: a\r\n"), 400),
    "two hosts in HTTP/1.0": (get(headers=b"Host: a\r\nHost: b\r\n", version=b"HTTP/1.0"), 400),
    "a host with a space": (get(headers=b"Host: a b\r\n"), 400),
    "a host with a path": (get(headers=b"Host: a/b\r\n"), 400),
    "a host with a user": (get(headers=b"Host: a@b\r\n"), 400),
    "hosts in a list": (get(headers=b"Host: a,b\r\n"), 400),
    "a target at another host": (get(b"http://b/"), 400),
    "a target without a host": (get(b"http:///path"), 400),
    # Targets
    "no path": (get(b"path"), 400),
    "* is for OPTIONS": (get(b"*"), 400),
    "a fragment": (get(b"/x#y"), 400),
    "a space in the target": (get(b"/a b"), 400),
    "a tab for a space": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "octets in the path": (get(b"/\xc3\xa9"), 400),
    "octets in the query": (get(b"/?\xff"), 400),
    "a control character in the path": (get(b"/\x01"), 400),
    "a tunnel": (get(b"a:80", method=b"CONNECT"), 501),
    "a tunnel to a path": (get(method=b"CONNECT"), 501),
    # Methods and versions
    "a method in lower case": (get(method=b"get"), 400),
    "an unknown method": (get(method=b"FOO"), 400),
    "another protocol's method": (b"DESCRIBE / RTSP/1.0\r\n\r\n", 501),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/1.2": (get(version=b"HTTP/1.2"), 400),
    "HTTP/2.0": (get(version=b"HTTP/2.0"), 505),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    # Where a body ends (RFC 9112, section 6)
    "length and coding": (post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "coding and length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400),
    "the same length twice": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400),
    "lengths in a list": (post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    "a length with a sign": (post(b"Content-Length: +3\r\n", b"abc"), 400),
    "a negative length": (post(b"Content-Length: -1\r\n"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    "a length with a space": (post(b"Content-Length: 1 0\r\n", b"abc"), 400),
    "no length": (post(b"Content-Length: \r\n"), 400),
    "a length beyond 64 bits": (post(b"Content-Length: 99999999999999999999999\r\n"), 400),
    "xchunked": (post(b"Transfer-Encoding: xchunked\r\n", SMUGGLED), 501),
    "identity": (post(b"Transfer-Encoding: identity\r\n", SMUGGLED), 501),
    "chunked, identity": (post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), 400),
    "identity, chunked": (post(b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n"), 501),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "gzip": (post(b"Transfer-Encoding: gzip\r\n", SMUGGLED), 501),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "chunked, then identity": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), 400),
    "quoted": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 501),
    "a parameter": (post(b"Transfer-Encoding: chunked;a=b\r\n", b"0\r\n\r\n"), 501),
    "a space before the colon": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    "a vertical tab": (post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    "no coding": (post(b"Transfer-Encoding: \r\n", SMUGGLED), 400),
    "chunked in HTTP/1.0": (get(headers=HOST + b"Transfer-Encoding: chunked\r\n", version=b"HTTP/1.0"), 400),
    # Chunks (RFC 9112, section 7.1)
    "a chunk's size with a prefix": (chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk's size with a sign": (chunked(b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk's size with an underscore": (chunked(b"0_3\r\nabc\r\n0\r\n\r\n"), 400),
    "a space before a chunk's size": (chunked(b" 3\r\nabc\r\n0\r\n\r\n"), 400),
    "a space behind a chunk's size": (chunked(b"3 \r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk's size beyond 64 bits": (chunked(b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk that is longer": (chunked(b"3\r\nabcde\r\n0\r\n\r\n"), 400),
    "a chunk without its end": (chunked(b"3\r\nabc0\r\n\r\n"), 400),
    "chunks with bare line feeds": (chunked(b"3\nabc\n0\n\n"), 400),
    "a line feed in an extension": (chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), 400),
    "a length among the trailers": (chunked(b"0\r\nContent-Length: 5\r\n\r\n"), 400),
    "NUL among the trailers": (chunked(b"0\r\nX: \0\r\n\r\n"), 400),
    "trailers without end": (chunked(b"0\r\nX: " + b"y" * 30_000 + b"\r\n\r\n"), 431),
    # Lines and headers (RFC 9112, sections 2.2 and 5)
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "a bare line feed": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    "a bare carriage return": (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400),
    "a carriage return in a value": (get(headers=HOST + b"X: y\rz\r\n"), 400),
    "two carriage returns": (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    "an end with a bare line feed": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "a space before the request": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a space behind the request": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "a space before the first header": (b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400),
    "a folded value": (get(headers=HOST + b"X: y\r\n z\r\n"), 400),
    "a header without a name": (get(headers=HOST + b": b\r\n"), 400),
    "a header without a colon": (get(headers=HOST + b"foo\r\n"), 400),
    "a name with octets": (get(headers=HOST + b"X\xc3\xa9: b\r\n"), 400),
    "a name with brackets": (get(headers=HOST + b"X(): b\r\n"), 400),
    "NUL in a value": (get(headers=HOST + b"X: a\0b\r\n"), 400),
    "a control character in a value": (get(headers=HOST + b"X: a\x01b\r\n"), 400),
    "DEL in a value": (get(headers=HOST + b"X: a\x7fb\r\n"), 400),
    # Expectations (RFC 9110, section 10.1.1)
    "an unknown expectation": (get(headers=HOST + b"Expect: a-miracle\r\n"), 417),
    "one more expectation": (post(b"Expect: 100-continue, a-miracle\r\nContent-Length: 1\r\n"), 417),
    # Handshakes
    "handshake: NUL in the path": (handshake(b"/%00"), 400),
    "handshake: a line break in the path": (handshake(b"/admin/%0A"), 400),
    "handshake: a raw control character": (handshake(b"/\x01"), 400),
    "handshake: octets in the query": (handshake(b"/?\xff"), 400),
    "handshake: a line break in a value": (handshake(headers=b"X: a\rb\r\n"), 400),
    "handshake: a control character in a value": (handshake(headers=b"X: a\x01b\r\n"), 400),
    "handshake: NUL in a cookie": (handshake(headers=b"Cookie: sessionid=a\0b\r\n"), 400),
    "handshake: a folded value": (handshake(headers=b"X: a\r\n b\r\n"), 400),
    "handshake: octets in a name": (handshake(headers=b"X\xe9: a\r\n"), 400),
    "handshake: octets in a subprotocol": (handshake(headers=b"Sec-WebSocket-Protocol: a\xe9\r\n"), 400),
    "handshake: a control character in a subprotocol": (handshake(headers=b"Sec-WebSocket-Protocol: a\x01\r\n"), 400),
    "handshake: two words in a subprotocol": (handshake(headers=b"Sec-WebSocket-Protocol: a b\r\n"), 400),
    "handshake: two hosts": (handshake(headers=b"Host: b\r\n"), 400),
    "handshake: a target at another host": (handshake(b"http://b/"), 400),
    "handshake: two keys": (handshake(headers=b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
    "handshake: a body": (handshake(headers=b"Content-Length: 5\r\n"), 400),
    "handshake: chunks": (handshake(headers=b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 400),
    "handshake: an expectation": (handshake(headers=b"Expect: a-miracle\r\n"), 417),
}


def answers(site: Site, data: bytes) -> list[int]:
    """The status codes of all answers; the connection is ended by the server."""
    with site.raw() as client:
        client.send(data)
        answer = client.read_to_end()
    assert b"Traceback" not in answer
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) [A-Z]", answer)]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["site", "direct"])
def test_what_is_refused(
    kind: str, name: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    site: Site = request.getfixturevalue(kind)
    data, status = REFUSED[name]
    calls = len(site.application.calls)
    is_websocket = name.startswith("handshake: ") and b"websocket" in data
    before = site.count(f"http.refused.{status}") + site.count(f"websocket.refused.{status}")
    with caplog.at_level(logging.DEBUG, "channelsq"):
        assert answers(site, data) == [status]
    assert len(site.application.calls) == calls
    assert site.count(f"http.refused.{status}") + site.count(f"websocket.refused.{status}") == before + 1
    (record,) = [each for each in caplog.records if each.levelno >= logging.INFO]
    assert record.__dict__["action"] in {
        "bad_request",
        "headers_too_large",
        "handshake_refused" if is_websocket else "",
    }
    assert record.__dict__["connection"]
    assert record.exc_info is None


SERVED = {
    "an IPv6 host": (get(headers=b"Host: [::1]:8000\r\n"), b"[GET /  ]"),
    "a host with an underscore": (get(headers=b"Host: web_1:8000\r\n"), b"[GET /  ]"),
    "an empty host": (get(headers=b"Host: \r\n"), b"[GET /  ]"),
    "a target with its host": (get(b"http://A/path?q=1"), b"[GET /path q=1 ]"),
    "a target with nothing but a host": (get(b"http://a"), b"[GET /  ]"),
    "a target with a query alone": (get(b"http://a?q"), b"[GET / q ]"),
    "* with OPTIONS": (get(b"*", method=b"OPTIONS"), b"[OPTIONS *  ]"),
    "HTTP/1.0 without a host": (get(headers=b"", version=b"HTTP/1.0"), b"[GET /  ]"),
    "an empty line before": (b"\r\n" + get(), b"[GET /  ]"),
    "a body with GET": (get(headers=HOST + b"Content-Length: 3\r\n") + b"abc", b"[GET /  abc]"),
    "chunks": (chunked(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), b"[POST /  abc]"),
    "chunks in capitals": (post(b"Transfer-Encoding: CHUNKED\r\n", b"3\r\nabc\r\n0\r\n\r\n"), b"[POST /  abc]"),
    "an extension": (chunked(b'3;a="b"\r\nabc\r\n0\r\n\r\n'), b"[POST /  abc]"),
    "trailers": (chunked(b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n"), b"[POST /  abc]"),
    "another method": (get(method=b"PROPFIND"), b"[PROPFIND /  ]"),
    "octets in a value": (get(headers=HOST + b"X: \xe9\r\n"), b"[GET /  ]"),
    "an upgrade to HTTP/2": (
        get(headers=HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n"),
        b"[GET /  ]",
    ),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served(site: Site, name: str) -> None:
    data, said = SERVED[name]
    with site.raw() as client:
        client.send(data)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.read_until(b"]") == said


def test_trailers_are_no_headers(site: Site) -> None:
    """A proxy that sets or strips a header does not look at trailers."""
    before = len(site.application.messages("http.request"))
    with site.raw() as client:
        client.send(chunked(b"3\r\nabc\r\n0\r\nX-Forwarded-For: 192.0.2.7\r\nCookie: a=b\r\nExpect: what\r\n\r\n"))
        client.read_until(b"]")
    message = site.application.wait_for("http.request", before + 1)[-1]
    assert [name for name, _ in message["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_body_behind_an_upgrade_is_a_body(site: Site, at_once: bool) -> None:
    """The parser takes it for the other protocol; as a request it would be one that no proxy saw."""
    head = post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: %d\r\n" % len(SMUGGLED))
    before = len(site.application.messages("http.request"))
    with site.raw() as client:
        if at_once:
            client.send(head + SMUGGLED + get(b"/next"))
        else:
            client.send(head)
            wait_until(lambda: site.server.context.stats["http.requests"] > 0, "the head to be read")
            client.send(SMUGGLED)
            client.send(get(b"/next"))
        assert client.read_until(b"]").endswith(b"[POST /  " + SMUGGLED + b"]")
        assert client.read_until(b"]").endswith(b"[GET /next  ]")
    first, second = site.application.wait_for("http.request", before + 2)[before:]
    assert [first["path"], second["path"]] == ["/", "/next"]
    assert (b"connection", b"HTTP2-Settings") in [tuple(each) for each in first["headers"]]
    assert b"upgrade" not in [name for name, _ in first["headers"]]


def test_many_upgrades_in_one_read(site: Site) -> None:
    request = get(headers=HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n")
    count = site.server.context.limits.pipelined
    with site.raw() as client:
        client.send(request * count)
        for _ in range(count):
            client.read_until(b"[GET /  ]")


def test_pipelined_requests_with_bodies_are_answered_in_order(site: Site) -> None:
    with site.raw() as client:
        client.send(
            post(b"Content-Length: 3\r\n", b"one") + chunked(b"2\r\ntw\r\n1\r\no\r\n0\r\n\r\n") + get(b"/three")
        )
        assert client.read_until(b"]").endswith(b"[POST /  one]")
        assert client.read_until(b"]").endswith(b"[POST /  two]")
        assert client.read_until(b"]").endswith(b"[GET /three  ]")


@pytest.mark.parametrize(
    ("behind", "statuses"),
    [
        (b"GARBAGE\r\n\r\n", [200, 400]),
        (get(headers=b""), [200, 400]),
        (get() + b"GARBAGE\r\n\r\n", [200, 200, 400]),
        (chunked(b"what\r\n"), [200, 400]),
        (get(headers=HOST + b"X: " + b"y" * 30_000 + b"\r\n"), [200, 431]),
        (handshake(), [200, 400]),
    ],
)
def test_a_refusal_waits_for_its_turn(site: Site, behind: bytes, statuses: list[int]) -> None:
    """Else it would be taken for the answer to the request before."""
    assert answers(site, get() + behind) == statuses


def test_nothing_is_served_behind_the_last_request(site: Site) -> None:
    before = len(site.application.messages("http.request"))
    assert answers(site, get(headers=HOST + b"Connection: close\r\n") + SMUGGLED) == [200]
    assert len(site.application.messages("http.request")) == before + 1


def test_nothing_is_served_behind_what_was_refused(site: Site) -> None:
    before = len(site.application.messages("http.request"))
    assert answers(site, get(headers=b"") + SMUGGLED) == [400]
    assert len(site.application.messages("http.request")) == before


def test_a_refusal_does_not_end_up_in_an_answer_under_way() -> None:
    """A body that breaks while its answer is already sent: the connection is dropped."""

    def begin(call: Call) -> None:
        call.now(status=200, headers=[], content=b"begun", more_content=True)

    with running({"http.request": begin}) as site, site.raw() as client:
        client.send(chunked(b"40000\r\n" + b"x" * 0x40000 + b"\r\n1\r\nx\r\n"))
        client.read_until(b"begun")
        client.send(b"what\r\n")
        assert b"400" not in client.read_to_end()
        site.application.wait_for("http.disconnect")


def test_a_client_that_leaves_with_requests_in_the_queue_is_told_of() -> None:
    def begin(call: Call) -> None:
        call.now(status=200, headers=[], content=b"begun", more_content=True)

    with running({"http.request": begin}) as site:
        with site.raw() as client:
            client.send(get(b"/first") + get(b"/second"))
            client.read_until(b"begun")
        (message,) = site.application.wait_for("http.disconnect")
        assert message["path"] == "/first"


def expect(client: RawClient, version: bytes = b"HTTP/1.1") -> None:
    client.send(get(headers=HOST + b"Expect: 100-Continue\r\nContent-Length: 3\r\n", version=version, method=b"POST"))


def test_100_continue(site: Site) -> None:
    with site.raw() as client:
        expect(client)
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert client.read_until(b"]").endswith(b"[POST /  abc]")


def test_100_continue_is_nothing_in_http_1_0(site: Site) -> None:
    with site.raw() as client:
        expect(client, b"HTTP/1.0")
        client.send(b"abc")
        assert client.read_to_end().startswith(b"HTTP/1.1 200 OK\r\n")


def test_head_with_a_body(site: Site) -> None:
    with site.raw() as client:
        client.send(get(headers=HOST + b"Content-Length: 3\r\n", method=b"HEAD") + b"abc" + get(b"/next"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.read_until(b"]") == b"[GET /next  ]"


@pytest.mark.parametrize("status", [204, 304])
def test_django_sends_no_content_where_there_must_be_none(direct: Site, status: int) -> None:
    with override_settings(ROOT_URLCONF="tests.support.edge_urls"), direct.raw() as client:
        client.send(get(b"/%d/" % status, b"Host: localhost\r\n") + get(b"/200/", b"Host: localhost\r\n"))
        first = client.read_until(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 %d " % status)
        assert b"content-length" not in first
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.read_until(b"content") == b"content"
