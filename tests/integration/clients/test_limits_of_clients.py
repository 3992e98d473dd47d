"""Too many connections, in all and of one client; those that say nothing, or too slowly."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.interface.presence import clients
from tests.support.interfaces import Call, RawClient, Site, accept, echo, running
from tests.support.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ECHO = {"websocket.connect": accept, "websocket.receive": echo}


def hello(call: Call) -> None:
    call.reply(status=200, headers=[], content=b"hello", more_content=False)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "channelsq")


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the interface server's log lines of connections, by their action."""
    return [record.__dict__["action"] for record in caplog.records if record.__dict__.get("connection")]


# -- in all ----------------------------------------------------------------------------------


def test_more_connections_than_there_may_be_get_503(caplog: pytest.LogCaptureFixture) -> None:
    with running({"http.request": hello, **ECHO}, InterfaceConfig(max_connections=2)) as site:
        with site.raw() as one, site.raw() as two:
            for client in (one, two):
                client.send(GET)
                client.read_until(b"hello")
            with site.raw() as three:
                three.send(GET)
                answer = three.read_to_end()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in answer
            with site.raw() as silent:  # does not stay, either
                begun = time.monotonic()
                assert silent.read_to_end().startswith(b"HTTP/1.1 503 ")
                assert time.monotonic() - begun < 5
            assert site.application.messages("http.request")[2:] == []
        wait_until(lambda: site.server.context.connections == 0, "them to be gone")
        assert httpx.get(site.url).text == "hello"
        assert site.count("http.too_many_connections") == site.count("http.refused.503") == 2
    assert actions(caplog) == ["too_many_connections"] * 2


def test_far_more_connections_are_not_even_waited_for() -> None:
    with running({}, InterfaceConfig(max_connections=1)) as site, contextlib.ExitStack() as stack:
        first = stack.enter_context(site.raw())
        first.send(b"GET")
        wait_until(lambda: site.server.context.connections == 1, "the first")
        others = [stack.enter_context(site.raw()) for _ in range(150)]
        assert others[-1].read_to_end().startswith(b"HTTP/1.1 503 ")
        wait_until(lambda: site.server.context.connections <= 101, "the surplus to be dropped", timeout=0.8)


# -- of one client ---------------------------------------------------------------------------


@pytest.fixture
def everybody_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's own address counts as one of the internet."""
    clients._peer.cache_clear()
    monkeypatch.setattr(clients, "is_public", lambda host: True)
    yield
    clients._peer.cache_clear()


@pytest.mark.usefixtures("everybody_counts")
def test_a_client_with_too_many_connections_gets_429(caplog: pytest.LogCaptureFixture) -> None:
    config = InterfaceConfig(max_connections_per_client=2)
    with running({"http.request": hello, **ECHO}, config) as site:
        with connect(site.ws_url), site.raw() as one:
            one.send(GET)
            one.read_until(b"hello")
            with site.raw() as two:
                two.send(GET)
                answer = two.read_to_end()
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: " in answer
            assert status_of(site) == 429
            assert len(site.application.messages("http.request")) == 1
            assert len(site.application.messages("websocket.connect")) == 1
        site.application.wait_for("websocket.disconnect")
        wait_until(lambda: len(site.server.context.clients) == 0, "the table to be empty")
        assert httpx.get(site.url).text == "hello"
        assert site.count("http.too_many_per_client") == site.count("http.refused.429") == 2
    assert actions(caplog) == ["too_many_per_client"] * 2


def test_addresses_that_may_be_a_proxys_are_not_counted() -> None:
    with running(ECHO, InterfaceConfig(max_connections_per_client=1)) as site:
        with connect(site.ws_url), connect(site.ws_url) as two:
            two.send("x")
            assert two.recv(timeout=10) == "x"
        assert len(site.server.context.clients) == 0


def status_of(site: Site, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused:
        connect(site.ws_url, **options).close()
    return refused.value.response.status_code


def by(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": f"6.6.6.6, {address}"}


def socket_of(site: Site, address: str) -> ClientConnection:
    return connect(site.ws_url, additional_headers=by(address))


BEHIND_PROXY = InterfaceConfig(max_connections_per_client=2, proxy_headers=True)


def test_behind_a_proxy_websockets_count_by_the_forwarded_address(caplog: pytest.LogCaptureFixture) -> None:
    with running(ECHO, BEHIND_PROXY) as site:
        with socket_of(site, "192.0.2.1") as one, socket_of(site, "192.0.2.1"), socket_of(site, "192.0.2.2"):
            assert status_of(site, additional_headers=by("192.0.2.1")) == 429
            assert len(site.application.messages("websocket.connect")) == 3
            one.close()
            wait_until(lambda: site.server.context.clients._counts["192.0.2.1"] == 1, "its place to be free")
            with socket_of(site, "192.0.2.1") as another:
                another.send("x")
                assert another.recv(timeout=10) == "x"
        with socket_of(site, "2001:db8::1"), socket_of(site, "2001:db8::2"):
            assert status_of(site, additional_headers=by("2001:db8::ffff")) == 429
        wait_until(lambda: len(site.server.context.clients) == 0, "the table to be empty")
        assert site.count("websocket.too_many_per_client") == site.count("websocket.refused.429") == 2
    assert actions(caplog) == ["handshake_refused"] * 2
    assert "--max-connections-per-client" in caplog.text


def test_behind_a_proxy_requests_count_while_they_wait(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()

    def slow(call: Call) -> None:
        if call["path"] == "/slow":
            assert go.wait(20)
        hello(call)

    def request(address: str, path: str = "/") -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n".encode()

    with running({"http.request": slow}, BEHIND_PROXY) as site, contextlib.ExitStack() as stack:
        proxied = [stack.enter_context(site.raw()) for _ in range(3)]
        for _ in range(5):  # answered one after another they are never more than one
            proxied[0].send(request("192.0.2.1"))
            proxied[0].read_until(b"hello")
        for each in proxied[:2]:
            each.send(request("192.0.2.1", "/slow"))
        site.application.wait_for("http.request", 7)
        proxied[2].send(request("192.0.2.2"))
        proxied[2].read_until(b"hello")  # somebody else, on a connection of the same proxy
        proxied[2].send(request("192.0.2.1"))
        answer = proxied[2].read_to_end()
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: " in answer
        go.set()
        for each in proxied[:2]:
            each.read_until(b"hello")
        proxied[0].send(request("192.0.2.1"))
        proxied[0].read_until(b"hello")
        proxied[1].send(request("192.0.2.1", "/-/health/live"))  # is never refused
        proxied[1].read_until(b"live\n")
        assert len(site.server.context.clients) == 0
        assert site.count("http.too_many_per_client") == site.count("http.refused.429") == 1
        assert len(site.application.messages("http.request")) == 9
    assert actions(caplog) == ["too_many_per_client"]


def test_a_client_that_leaves_gives_its_place_back() -> None:
    with running({}, BEHIND_PROXY) as site:
        for _ in range(4):
            with site.raw() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
                wait_until(lambda: len(site.server.context.clients) == 1, "the request")
            wait_until(lambda: len(site.server.context.clients) == 0, "it to be gone")
        assert site.count("http.refused.429") == 0


# -- that take their time ---------------------------------------------------------------------


def test_a_head_that_drips_is_408(caplog: pytest.LogCaptureFixture) -> None:
    """Slowloris: each byte comes soon after the last."""
    stop = threading.Event()

    def drip(client: RawClient) -> None:
        with contextlib.suppress(OSError):
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 10_000:
                client.send(bytes((byte,)))
                if stop.wait(0.02):
                    return

    with running({"http.request": hello}, InterfaceConfig(header_timeout=0.4)) as site, site.raw() as client:
        begun = time.monotonic()
        thread = threading.Thread(target=drip, args=(client,))
        thread.start()
        try:
            assert client.read_until(b"\r\n").startswith(b"HTTP/1.1 408 ")
        finally:
            stop.set()
            thread.join()
        assert time.monotonic() - begun < 5
        assert site.count("http.late_request") == site.count("http.refused.408") == 1
    assert actions(caplog) == ["late_request"]


def test_a_handshake_that_drips_is_408_too() -> None:
    with running(ECHO, InterfaceConfig(header_timeout=0.3)) as site, site.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSo")
        assert client.read_to_end().startswith(b"HTTP/1.1 408 ")


def test_a_kept_connection_without_another_request_is_closed() -> None:
    with running({"http.request": hello}, InterfaceConfig(keep_alive_timeout=0.3)) as site, site.raw() as client:
        client.send(GET)
        client.read_until(b"hello")
        assert client.read_to_end() == b""
        wait_until(lambda: site.server.context.connections == 0, "it to be gone")
        assert site.count("http.refused.408") == 0


def test_too_many_requests_behind_one_another_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with running({"http.request": hello}, InterfaceConfig(http_timeout=5)) as site:
        with site.raw() as client:
            client.send(GET * 60)
            for _ in range(60):
                client.read_until(b"hello")
        with site.raw() as client:
            client.send(GET * 5000)
            answers = client.read_to_end()
            assert answers.count(b"hello") == 65  # one, and those that wait behind it
            assert answers.partition(b"HTTP/1.1 429 ")[0].count(b"hello") == 65
        assert httpx.get(site.url).text == "hello"
        assert site.count("http.too_many_pipelined") == 1
    assert actions(caplog) == ["too_many_pipelined"]


def test_an_idle_socket_is_closed_with_1001(caplog: pytest.LogCaptureFixture) -> None:
    """Pings do not make it busy; messages do, in both directions."""
    config = InterfaceConfig(idle_timeout=0.6, ping_interval=0.2)
    with running(ECHO, config) as site:
        with connect(site.ws_url) as idle, connect(site.ws_url) as told, connect(site.ws_url) as telling:
            begun = time.monotonic()
            (_, second, _) = site.application.wait_for("websocket.connect", 3)
            stop = threading.Event()

            def keep_busy() -> None:
                while not stop.wait(0.1):
                    site.layer.send(second["reply_channel"], {"text": "news"})
                    telling.send("news")

            thread = threading.Thread(target=keep_busy)
            thread.start()
            try:
                with pytest.raises(ConnectionClosed) as closed:
                    idle.recv(timeout=10)
                assert time.monotonic() - begun >= 0.6
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "idle")
                for each in (told, telling):
                    for _ in range(10):
                        assert each.recv(timeout=10) == "news"
            finally:
                stop.set()
                thread.join()
        assert site.application.wait_for("websocket.disconnect")[0]["code"] == 1001
        assert site.count("websocket.idle") == 1
    assert actions(caplog) == ["idle"]


def test_a_socket_whose_message_is_handled_is_not_idle() -> None:
    go = threading.Event()

    def slow(call: Call) -> None:
        assert go.wait(10)
        echo(call)

    config = InterfaceConfig(idle_timeout=0.3)
    with (
        running({**ECHO, "websocket.receive": slow}, config) as site,
        connect(site.ws_url) as busy,
        connect(site.ws_url) as idle,
    ):
        busy.send("x")
        with pytest.raises(ConnectionClosed):
            idle.recv(timeout=10)
        go.set()
        assert busy.recv(timeout=10) == "x"


# -- that do not read -------------------------------------------------------------------------


def test_a_member_of_a_group_that_does_not_read_is_closed_and_the_others_get_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def join(call: Call) -> None:
        call.layer.group_add("room", call["reply_channel"])
        call.reply(accept=True)

    config = InterfaceConfig(send_queue=200_000, limits=Limits(close_timeout=0.5))
    with running({"websocket.connect": join}, config) as site, site.raw() as slow:
        slow.upgrade()
        (first,) = site.application.messages("websocket.connect")
        with connect(site.ws_url, compression=None) as one, connect(site.ws_url) as two:
            sent = 0
            while not site.count("websocket.slow_clients"):
                assert sent < 500
                site.layer.send_group("room", {"text": f"{sent} " + "x" * 50_000})
                for each in (one, two):
                    message = each.recv(timeout=10)
                    assert isinstance(message, str)
                    assert message.startswith(f"{sent} ")
                sent += 1
            assert site.application.wait_for("websocket.disconnect")[0]["code"] == 1013
            site.layer.send_group("room", {"text": "still here"})
            assert [each.recv(timeout=10) for each in (one, two)] == ["still here"] * 2
        assert site.count("websocket.slow_clients") == 1
    assert actions(caplog) == ["slow_client"]
    assert first["reply_channel"] in {record.__dict__.get("connection") for record in caplog.records}
