"""WebSockets through the interface server, on real sockets."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.layers.contract.layer_values import Send
from tests.support.interfaces import Call, Site, accept, echo, frame, running
from tests.support.waiting import wait_until

ECHO = {"websocket.connect": accept, "websocket.receive": echo}


def closed_with(client: ClientConnection) -> int:
    """The close code that the server sends, after whatever it sent before."""
    with pytest.raises(ConnectionClosed) as closed:
        drain(client)
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def drain(client: ClientConnection) -> None:
    while True:
        client.recv(timeout=10)


def status_of(site: Site, path: str = "/", **options: Any) -> int:
    """The HTTP status that a handshake is refused with."""
    with pytest.raises(InvalidStatus) as refused:
        connect(site.ws_url + path, **options).close()
    response = refused.value.response
    assert "Traceback" not in (response.body or b"").decode()
    return response.status_code


def test_the_connect_message() -> None:
    with running(ECHO, InterfaceConfig(root_path="/app")) as site:
        with connect(
            f"{site.ws_url}/caf%C3%A9/?a=%20b",
            additional_headers={"X-Thing": "Value"},
            origin=Origin("http://localhost"),
        ):
            pass
        (message,) = site.application.messages("websocket.connect")
        (last,) = site.application.wait_for("websocket.disconnect")
    assert message["reply_channel"].startswith("websocket.send.")
    assert message["path"] == "/café/"
    assert message["query_string"] == b"a=%20b"
    assert message["root_path"] == "/app"
    assert message["scheme"] == "ws"
    assert message["order"] == 0
    assert [b"x-thing", b"Value"] in message["headers"]
    assert [b"origin", b"http://localhost"] in message["headers"]
    assert message["client"][0] == "127.0.0.1"
    assert message["server"] == ["127.0.0.1", site.port]
    assert last == {
        "reply_channel": message["reply_channel"],
        "path": "/café/",
        "root_path": "/app",
        "code": 1000,
        "reason": "",
        "order": 1,
    }


def test_pages_of_other_sites_open_no_socket() -> None:
    with running(ECHO) as site:
        assert status_of(site, origin="https://evil.example") == 403
        assert status_of(site, origin="null") == 403
        with (
            connect(site.ws_url, origin=Origin(f"http://localhost:{site.port}")) as page,
            connect(site.ws_url) as program,
        ):
            page.send("page")
            program.send("program")
            assert (page.recv(10), program.recv(10)) == ("page", "program")
        assert site.count("websocket.foreign_origin") == site.count("websocket.refused.403") == 2
        site.application.wait_for("websocket.disconnect", 2)
        assert len(site.application.messages("websocket.connect")) == 2  # nobody was told of the others


def test_the_settings_say_who_else_may_open_a_socket(settings: Any) -> None:
    settings.CHANNEL_ALLOWED_ORIGINS = ["https://friend.example"]
    settings.CHANNEL_REQUIRE_ORIGIN = True
    with running(ECHO) as site:
        with connect(site.ws_url, origin=Origin("https://friend.example")) as friend:
            friend.send("hello")
            assert friend.recv(10) == "hello"
        assert status_of(site, origin="https://evil.example") == 403
        assert status_of(site) == 403


def test_proxy_headers() -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, [2001:db8::1]:5555", "X-Forwarded-Proto": "https"}
    with running(ECHO, InterfaceConfig(proxy_headers=True)) as site:
        with connect(site.ws_url, additional_headers=headers):
            pass
        (message,) = site.application.messages("websocket.connect")
    assert (message["client"], message["scheme"]) == (["2001:db8::1", 0], "wss")


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_text_and_bytes_both_ways(compression: str | None) -> None:
    with running(ECHO) as site, connect(site.ws_url, compression=compression, max_size=None) as client:
        for payload in ("", "plain", "grün \u20ac \U0001f600", b"", b"\x00\xff", "x" * 100_000, b"y" * 100_000):
            client.send(payload)
            assert client.recv(timeout=10) == payload


def test_fragments_are_put_together() -> None:
    with running(ECHO) as site, connect(site.ws_url) as client:
        client.send(["one ", "two ", "three"])
        assert client.recv(timeout=10) == "one two three"
        (message,) = site.application.messages("websocket.receive")
        assert message["text"] == "one two three"
        assert message["order"] == 1


def test_fragments_of_nothing_take_no_memory() -> None:
    with running(ECHO, InterfaceConfig(max_message_rate=0)) as site, site.raw() as client:
        client.upgrade()
        client.send(frame(1, b"a", fin=False) + frame(0, b"", fin=False) * 10_000 + frame(9, b"here"))
        assert client.read_frame() == (10, b"here")
        (each,) = site.server.context.sockets
        assert each._reading.incoming._parts == b"a"  # type: ignore[attr-defined]
        client.send(frame(0, b"b"))
        assert client.read_frame() == (1, b"ab")


def test_frames_arrive_in_order_and_one_after_another() -> None:
    running_now = 0
    worst = 0
    lock = threading.Lock()

    def receive(call: Call) -> None:
        nonlocal running_now, worst
        with lock:
            running_now += 1
            worst = max(worst, running_now)
        time.sleep(0.001)
        call.reply(text=call["text"])
        with lock:
            running_now -= 1

    with running({"websocket.connect": accept, "websocket.receive": receive}, threads=8) as site:
        with connect(site.ws_url) as client:
            for number in range(200):
                client.send(str(number))
            assert [client.recv(timeout=10) for _ in range(200)] == [str(number) for number in range(200)]
        site.application.wait_for("websocket.disconnect")
        orders = [call.message["order"] for call in site.application.calls]
    assert worst == 1
    assert orders == list(range(202))


def test_the_disconnect_comes_last_though_the_client_leaves_at_once() -> None:
    go = threading.Event()

    def slow(call: Call) -> None:
        assert go.wait(10)

    with running({"websocket.connect": accept, "websocket.receive": slow}) as site:
        with connect(site.ws_url) as client:
            for number in range(5):
                client.send(str(number))
            site.application.wait_for("websocket.receive")
        go.set()
        site.application.wait_for("websocket.disconnect")
        assert [message["text"] for message in site.application.messages("websocket.receive")] == list("01234")
        assert site.application.calls[-1].channel == "websocket.disconnect"


def test_refusal_is_403() -> None:
    with running({"websocket.connect": lambda call: call.reply(close=True)}) as site:
        assert status_of(site) == 403
        (last,) = site.application.wait_for("websocket.disconnect")
        assert last["code"] == 1006


def test_text_implies_the_accept_and_keeps_its_place() -> None:
    def greet(call: Call) -> None:
        call.now(text="one")
        call.reply(text="two")

    with running({"websocket.connect": greet}) as site, connect(site.ws_url) as client:
        assert [client.recv(timeout=10), client.recv(timeout=10)] == ["one", "two"]


def test_frames_for_a_socket_wait_for_its_accept() -> None:
    go = threading.Event()

    def slow(call: Call) -> None:
        call.layer.group_add("room", call["reply_channel"])
        call.layer.channel_layer.send_group("room", {"text": "from the group"})
        assert go.wait(10)
        call.reply(accept=True)
        call.reply(text="welcome")

    with running({"websocket.connect": slow}) as site:
        threading.Timer(0.2, go.set).start()
        with connect(site.ws_url) as client:
            assert go.is_set()
            assert [client.recv(timeout=10), client.recv(timeout=10)] == ["from the group", "welcome"]


def test_a_refused_socket_gets_nothing_of_its_group() -> None:
    def refuse(call: Call) -> None:
        call.layer.group_add("room", call["reply_channel"])
        call.layer.channel_layer.send_group("room", {"text": "secret"})
        call.reply(close=True)

    with running({"websocket.connect": refuse}) as site:
        assert status_of(site) == 403


def test_the_worker_chooses_the_subprotocol() -> None:
    def choose(call: Call) -> None:
        call.reply(accept=True, subprotocol="b")

    with running({"websocket.connect": choose}) as site:
        offered = [Subprotocol("a"), Subprotocol("b")]
        with connect(site.ws_url, subprotocols=offered) as client:
            assert client.subprotocol == "b"
        assert status_of(site, subprotocols=[Subprotocol("a")]) == 403


def test_groups_reach_compressed_and_plain_sockets() -> None:
    def join(call: Call) -> None:
        call.layer.group_add("room", call["reply_channel"])
        call.reply(accept=True)

    with running({"websocket.connect": join}) as site:
        with connect(site.ws_url) as one, connect(site.ws_url, compression=None) as two:
            for content in ({"text": "grün"}, {"bytes": b"\xff"}):
                site.layer.send_group("room", content)
                expected = next(iter(content.values()))
                assert [one.recv(timeout=10), two.recv(timeout=10)] == [expected, expected]
        wait_until(lambda: not site.layer.group_channels("room"), "the group to be empty")


def test_a_group_joined_behind_the_clients_back_is_left_too() -> None:
    entered, go = threading.Event(), threading.Event()

    def late(call: Call) -> None:
        entered.set()
        assert go.wait(10)
        call.layer.group_add("room", call["reply_channel"])

    with running({"websocket.connect": accept, "websocket.receive": late}) as site:
        with connect(site.ws_url) as client:
            client.send("join")
            assert entered.wait(10)
        wait_until(lambda: site.server.context.connections == 0, "the socket to end")
        go.set()
        wait_until(lambda: not site.server.context.sockets, "the disconnect to be done")
        assert site.layer.group_channels("room") == []


@pytest.mark.parametrize(("close", "code"), [(True, 1000), (1001, 1001), (3000, 3000), (4321, 4321)])
def test_close_codes_from_the_application(close: Any, code: int) -> None:
    def receive(call: Call) -> None:
        call.reply(text="goodbye", close=close)

    with running({"websocket.connect": accept, "websocket.receive": receive}) as site:
        with connect(site.ws_url) as client:
            client.send("x")
            assert client.recv(timeout=10) == "goodbye"
            assert closed_with(client) == code
        (last,) = site.application.wait_for("websocket.disconnect")
        assert last["code"] == code


def test_a_reason_that_is_too_long_is_cut_and_the_socket_closed() -> None:
    def receive(call: Call) -> None:
        call.reply(close=4001, reason="ü" * 62)

    with running({"websocket.connect": accept, "websocket.receive": receive}) as site, connect(site.ws_url) as client:
        client.send("x")
        assert closed_with(client) == 4001
        assert client.close_reason == "ü" * 61


@pytest.mark.parametrize("code", [1000, 1001, 3333, 4999])
@pytest.mark.parametrize("reason", ["", "so that äll know"])
def test_close_codes_from_the_client(code: int, reason: str) -> None:
    with running(ECHO) as site:
        with connect(site.ws_url) as client:
            client.close(code, reason)
        (last,) = site.application.wait_for("websocket.disconnect")
        assert (last["code"], last["reason"]) == (code, reason)


def test_no_close_code_is_1005_and_no_close_is_1006() -> None:
    with running(ECHO) as site:
        with site.raw() as client:
            client.upgrade()
            client.send(frame(0x8, b""))
            assert client.read(2) == b"\x88\x00"
        assert site.application.wait_for("websocket.disconnect")[0]["code"] == 1005
        with site.raw() as client:
            client.upgrade()
        assert site.application.wait_for("websocket.disconnect", 2)[1]["code"] == 1006


def test_a_bad_reply_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    def receive(call: Call) -> None:
        call.reply(close=1006)
        call.reply(text="still here")

    with running({"websocket.connect": accept, "websocket.receive": receive}) as site, connect(site.ws_url) as client:
        client.send("x")
        assert client.recv(timeout=10) == "still here"
    (record,) = [each for each in caplog.records if each.__dict__.get("action") == "bad_reply"]
    assert "1006" in record.getMessage()


def test_no_accept_in_time_is_504() -> None:
    with running({}, InterfaceConfig(accept_timeout=0.3)) as site:
        assert status_of(site) == 504
        site.application.wait_for("websocket.disconnect")


def test_a_client_that_leaves_before_the_accept_is_told_of() -> None:
    go = threading.Event()

    def slow(call: Call) -> None:
        assert go.wait(10)
        call.reply(accept=True)

    with running({"websocket.connect": slow}) as site:
        with site.raw() as client:
            client.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            site.application.wait_for("websocket.connect")
        wait_until(lambda: site.server.context.connections == 0, "the socket to end")
        assert site.application.messages("websocket.disconnect") == []
        go.set()
        assert site.application.wait_for("websocket.disconnect")[0]["code"] == 1006


def test_keys_that_mean_nothing_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def receive(call: Call) -> None:
        call.reply(type="websocket.send", text="one")
        call.reply(type="websocket.send", txt="two")

    with running({"websocket.connect": accept, "websocket.receive": receive}) as site, connect(site.ws_url) as client:
        for _ in range(2):
            client.send("x")
            assert client.recv(timeout=10) == "one"
        wait_until(lambda: "'txt'" in caplog.text, "the log")
    told = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "unknown_keys"]
    assert len(told) == 2
    assert "'type'; known are accept, text, bytes, close, reason and subprotocol ('type' is of Channels 4" in told[0]
    assert "'txt'; known are" in told[1]


def test_a_burst_of_handshakes_waits_for_room() -> None:
    def slowly(call: Call) -> None:
        threading.Event().wait(0.005)
        call.reply(accept=True)

    handlers = {"websocket.connect": slowly, "websocket.receive": echo}
    with running(handlers, layer_config={"capacity": 5}) as site, ThreadPoolExecutor(60) as threads:

        def visit(number: int) -> str | bytes:
            with connect(site.ws_url, open_timeout=30) as client:
                client.send(str(number))
                return client.recv(timeout=30)

        assert sorted(threads.map(visit, range(120)), key=int) == [str(number) for number in range(120)]
        assert site.count("websocket.refused.503") == 0


def test_full_channel_at_connect_is_503() -> None:
    config = InterfaceConfig(limits=Limits(room_patience=0.3))
    with running({}, config, layer_config={"capacity": 1}, threads=0) as site:
        site.layer.send("websocket.connect", {"text": ""})
        assert status_of(site) == 503
        wait_until(lambda: not site.server.context.sockets, "the socket to be forgotten")
        assert site.count("websocket.refused.503") == 1


def test_full_channel_holds_a_frame_up() -> None:
    with running(ECHO, threads=1) as site:
        layer = site.layer.channel_layer
        dispatch = layer.dispatch
        full = threading.Event()
        full.set()

        def sometimes(sends: list[Send]) -> None:
            if full.is_set() and sends[0].target == "websocket.receive":
                raise ChannelFull("websocket.receive", 1)
            dispatch(sends)

        layer.dispatch = sometimes  # type: ignore[method-assign,assignment]
        with connect(site.ws_url) as client:
            client.send("held up")
            site.wait_for_count("link.full", 2)
            full.clear()
            assert client.recv(timeout=10) == "held up"


def test_a_channel_that_stays_full_closes_the_socket_with_1013(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(publish_patience=0.2)
    with running(ECHO, InterfaceConfig(limits=limits)) as site, connect(site.ws_url) as client:
        layer = site.layer.channel_layer
        dispatch = layer.dispatch

        def down(sends: list[Send]) -> None:
            if sends[0].target == "websocket.receive":
                raise BrokerUnavailable("redis://nowhere", "connection refused")
            dispatch(sends)

        monkeypatch.setattr(layer, "dispatch", down)
        client.send("lost")
        assert closed_with(client) == 1013
        site.application.wait_for("websocket.disconnect")
        assert site.count("websocket.lost_messages") == 1


def test_an_unreported_message_holds_the_next_one_up_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """As after a worker's death: nobody says that the message is done."""
    with running({}, InterfaceConfig(order_timeout=0.5), threads=0) as site:
        clients: list[ClientConnection] = []
        thread = threading.Thread(target=lambda: clients.append(connect(site.ws_url)))
        thread.start()
        layer = site.layer

        def take(channel: str) -> dict[str, Any]:
            def taken() -> dict[str, Any] | None:
                return layer.receive([channel])[1]

            return wait_until(taken, channel)

        opened = take("websocket.connect")
        layer.send(opened["reply_channel"], {"accept": True})
        thread.join(10)
        (client,) = clients
        with client:
            client.send("next")
            assert layer.receive(["websocket.receive"]) == (None, None)
            assert take("websocket.receive")["text"] == "next"
        assert site.count("websocket.overdue") >= 1
        take("websocket.disconnect")
    assert "order_timeout" in {each.__dict__.get("action") for each in caplog.records}


def test_reading_stops_while_the_backlog_is_full() -> None:
    go = threading.Event()
    seen: list[str] = []

    def slow(call: Call) -> None:
        assert go.wait(20)
        seen.append(call["text"])

    with running({"websocket.connect": accept, "websocket.receive": slow}) as site:
        with site.raw() as client:
            client.upgrade()
            # Many small frames at once, and then more than all buffers hold.
            burst = b"".join(frame(0x1, b"%d" % number) for number in range(1000))
            client.send(burst)
            site.wait_for_count("websocket.paused")
            client.socket.settimeout(1)
            with pytest.raises(TimeoutError):
                client.send(frame(0x1, b"x" * 60_000) * 1000)
            received = site.count("websocket.received")
            assert received < 1000
            go.set()
        site.application.wait_for("websocket.disconnect", timeout=30)
    assert seen[:1000] == [str(number) for number in range(min(1000, len(seen)))]


def test_a_slow_client_is_closed() -> None:
    with running({"websocket.connect": accept}, InterfaceConfig(limits=Limits(close_timeout=0.5))) as site:
        with site.raw() as client:
            client.upgrade()
            (message,) = site.application.messages("websocket.connect")
            for _ in range(200):
                if site.count("websocket.slow_clients"):
                    break
                site.layer.send(message["reply_channel"], {"text": "x" * 100_000})
            site.wait_for_count("websocket.slow_clients")
            (last,) = site.application.wait_for("websocket.disconnect")
            assert last["code"] == 1013
        assert site.count("websocket.slow_clients") == 1


def test_a_slow_client_misses_droppable_messages_and_stays() -> None:
    with (
        running({"websocket.connect": accept}) as site,
        connect(f"{site.ws_url}/", max_size=None, compression=None) as client,
    ):
        (message,) = site.application.messages("websocket.connect")
        channel = message["reply_channel"]
        sent = 0
        while not site.count("websocket.dropped"):  # the client's own buffers fill up, then the server's
            site.layer.send(channel, {"text": f"{sent} {'x' * 50_000}", "droppable": True})
            sent += 1
        site.layer.send(channel, {"text": "certain"})
        received: list[str] = []
        while not received or received[-1] != "certain":
            received.append(str(client.recv(10)).partition(" ")[0])
        numbers = [int(each) for each in received[:-1]]
        assert numbers == sorted(numbers)
        assert sent - len(numbers) == site.count("websocket.dropped")
        site.layer.send(channel, {"text": "later", "droppable": True})
        assert client.recv(10) == "later"
        assert site.count("websocket.slow_clients") == 0


def test_pings_keep_a_socket_and_their_absence_ends_it() -> None:
    config = InterfaceConfig(ping_interval=0.3, ping_timeout=0.6)
    with running(ECHO, config) as site:
        with connect(site.ws_url) as client, site.raw() as silent:
            silent.upgrade()
            assert silent.read_frame()[0] == 0x9
            assert silent.read_to_end() == b""
            assert site.application.wait_for("websocket.disconnect")[0]["code"] == 1006
            client.send("still here")
            assert client.recv(timeout=10) == "still here"
        assert site.count("websocket.ping_timeouts") == 1


def test_no_pings_with_an_interval_of_0() -> None:
    config = InterfaceConfig(ping_interval=0, ping_timeout=0.1)
    with running(ECHO, config) as site, site.raw() as client:
        client.upgrade()
        client.socket.settimeout(0.8)
        with pytest.raises(TimeoutError):
            client.read(1)


def test_a_clients_ping_is_answered() -> None:
    with running(ECHO) as site, connect(site.ws_url) as client:
        assert client.ping().wait(10)


def test_the_end_closes_sockets_with_1012_and_delivers_the_disconnects() -> None:
    with running(ECHO) as site:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(site.ws_url)) for _ in range(5)]
            begun = time.monotonic()
            site.server.stop()
            assert [closed_with(client) for client in clients] == [1012] * 5
        assert [message["code"] for message in site.application.wait_for("websocket.disconnect", 5)] == [1012] * 5
        wait_until(lambda: not site.server.context.sockets, "the disconnects to be done")
        assert time.monotonic() - begun < 5


def test_the_end_refuses_pending_handshakes_with_503() -> None:
    go = threading.Event()
    statuses: list[int] = []
    with running({"websocket.connect": lambda call: assert_(go.wait(10))}) as site:
        thread = threading.Thread(target=lambda: statuses.append(status_of(site)))
        thread.start()
        site.application.wait_for("websocket.connect")
        site.server.stop()
        thread.join(10)
        go.set()
        site.application.wait_for("websocket.disconnect")
    assert statuses == [503]


def assert_(value: object) -> None:
    assert value


def test_the_end_does_not_wait_for_ever() -> None:
    """Neither for a client that does not answer the close, nor for a worker that is not there."""
    limits = Limits(close_timeout=0.3, end_answers=0.5, end_ordered=1, end_all=2)
    config = InterfaceConfig(drain_window=0, limits=limits)
    with running({}, config, threads=0) as site, site.raw() as client:
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        wait_until(lambda: site.server.context.sockets, "the handshake")
        site.server.stop()
        wait_until(lambda: site.layer.receive(["websocket.disconnect"])[1], "the disconnect")


def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "channelsq.access")
    with running(ECHO, InterfaceConfig(access_log=True)) as site:
        with connect(f"{site.ws_url}/chat/?session_key=secret"):
            pass
        site.application.wait_for("websocket.disconnect")
    assert '"WebSocket /chat/?session_key=***" accepted' in caplog.text
    assert '"WebSocket /chat/?session_key=***" closed 1000' in caplog.text
    assert "secret" not in caplog.text
