"""HTTP through the interface server, on real sockets."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.layers.contract.layer_values import Send
from tests.support.interfaces import Call, Handler, Site, running
from tests.support.waiting import wait_until


def answer(status: int = 200, content: bytes | str = b"hello", **message: Any) -> Handler:
    def handler(call: Call) -> None:
        call.reply(status=status, content=content, **{"headers": [[b"X-A", b"b"]], "more_content": False, **message})

    return handler


def body_of(call: Call) -> bytes:
    """The whole body, the rest of it from its channel."""
    body: bytes = call["body"]
    channel = call["body_channel"]
    while channel:
        _, chunk = call.layer.receive([channel], block=True)
        if chunk is None:
            continue
        assert not chunk["closed"]
        assert len(chunk["content"]) <= 256 * 1024
        body += chunk["content"]
        if not chunk["more_content"]:
            return body
    return body


def test_the_request_message() -> None:
    with running({"http.request": answer()}) as site:
        response = httpx.post(
            f"{site.url}/caf%C3%A9/?q=%20a", content=b"body", headers={"X-Thing": "Value", "Host": "example.com"}
        )
        assert (response.status_code, response.content, response.headers["x-a"]) == (200, b"hello", "b")
        assert response.headers["content-length"] == "5"
        assert "server" not in response.headers
        (message,) = site.application.messages("http.request")
    assert message["reply_channel"].startswith("http.response.")
    assert "!" in message["reply_channel"]
    assert message["http_version"] == "1.1"
    assert message["method"] == "POST"
    assert message["scheme"] == "http"
    assert message["path"] == "/café/"
    assert message["query_string"] == b"q=%20a"
    assert message["root_path"] == ""
    assert [b"x-thing", b"Value"] in message["headers"]
    assert message["body"] == b"body"
    assert message["body_channel"] is None
    assert message["client"][0] == "127.0.0.1"
    assert message["server"] == ["127.0.0.1", site.port]


def test_root_path_is_passed_on() -> None:
    with running({"http.request": answer()}, InterfaceConfig(root_path="/app")) as site:
        httpx.get(f"{site.url}/x")
        (message,) = site.application.messages("http.request")
    assert (message["root_path"], message["path"]) == ("/app", "/x")


@pytest.mark.parametrize("believe", [False, True])
def test_proxy_headers_only_where_they_are_believed(believe: bool) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 10.1.2.3", "X-Forwarded-Proto": "https"}
    with running({"http.request": answer()}, InterfaceConfig(proxy_headers=believe)) as site:
        httpx.get(site.url, headers=headers)
        (message,) = site.application.messages("http.request")
    if believe:
        assert (message["client"], message["scheme"]) == (["10.1.2.3", 0], "https")
    else:
        assert (message["client"][0], message["scheme"]) == ("127.0.0.1", "http")


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
def test_bodies_of_any_size(size: int) -> None:
    sent = bytes(range(256)) * (size // 256 + 1)
    sent = sent[:size]

    def handler(call: Call) -> None:
        assert len(call["body"]) <= 256 * 1024
        call.reply(status=200, content=hashlib.sha256(body_of(call)).digest(), more_content=False)

    with running({"http.request": handler}) as site:
        response = httpx.post(site.url, content=sent)
    assert response.content == hashlib.sha256(sent).digest()


def test_a_body_waits_while_its_channel_is_full() -> None:
    go = threading.Event()

    def handler(call: Call) -> None:
        assert go.wait(10)
        call.reply(status=200, content=b"%d" % len(body_of(call)), more_content=False)

    with running({"http.request": handler}, layer_config={"channel_capacity": {"http.request.body*": 2}}) as site:
        answers: list[bytes] = []
        client = threading.Thread(
            target=lambda: answers.append(httpx.post(site.url, content=b"x" * 5_000_000, timeout=20).content)
        )
        client.start()
        site.wait_for_count("http.body_waits", 2)
        go.set()
        client.join(20)
    assert answers == [b"5000000"]


def test_a_client_that_leaves_during_its_body_is_told_of() -> None:
    ends: list[dict[str, Any]] = []

    def handler(call: Call) -> None:
        while not ends:
            _, chunk = call.layer.receive([call["body_channel"]], block=True)
            if chunk is not None and chunk["closed"]:
                ends.append(chunk)

    with running({"http.request": handler}) as site:
        with site.raw() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 400_000)
            site.application.wait_for("http.request")
        (gone,) = site.application.wait_for("http.disconnect")
        wait_until(lambda: ends, "the body's end")
    assert gone["path"] == "/"
    assert gone["reply_channel"] == site.application.messages("http.request")[0]["reply_channel"]


def test_a_client_that_leaves_before_its_answer_is_told_of() -> None:
    with running({}) as site:
        with site.raw() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            site.application.wait_for("http.request")
        (gone,) = site.application.wait_for("http.disconnect")
        assert gone["path"] == "/slow"
        assert site.count("http.clients_left") == 1


def test_an_answered_request_has_no_disconnect() -> None:
    with running({"http.request": answer()}) as site:
        httpx.get(site.url)
        wait_until(lambda: site.server.context.connections == 0, "the connection to end")
        assert site.application.messages("http.disconnect") == []


def test_streamed_responses_arrive_part_by_part() -> None:
    seen_first = threading.Event()

    def handler(call: Call) -> None:
        call.now(status=200, headers=[], content=b"one", more_content=True)
        assert seen_first.wait(10)
        call.now(content=b"two", more_content=True)
        call.now(content=b"three", more_content=False)

    with running({"http.request": handler}) as site, httpx.stream("GET", site.url) as response:
        parts = response.iter_raw()
        assert next(parts) == b"one"
        seen_first.set()
        assert b"".join(parts) == b"twothree"
        assert response.headers["transfer-encoding"] == "chunked"


def test_credit_is_given_when_the_client_has_read() -> None:
    log: list[str] = []

    def handler(call: Call) -> None:
        credit = call.layer.new_channel("http.response.credit?")
        call.now(status=200, headers=[], content=b"x" * 7_500_000, more_content=True, credit_channel=credit)
        while True:
            _, message = call.layer.receive([credit], block=True)
            if message is not None:
                log.append(next(iter(message)))
                break
        call.now(content=b"end", more_content=False)

    with running({"http.request": handler}, layer_config={"message_size_limit": 8_000_000}) as site:
        with site.raw() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            assert log == []
            client.read_until(b"3\r\nend\r\n0\r\n\r\n")
        assert log == ["credit"]


def test_a_producer_learns_that_the_client_left() -> None:
    log: list[dict[str, Any]] = []

    def handler(call: Call) -> None:
        credit = call.layer.new_channel("http.response.credit?")
        call.now(status=200, headers=[], content=b"x", more_content=True)
        while not log:
            call.now(content=b"x" * 100_000, more_content=True, credit_channel=credit)
            while True:
                _, message = call.layer.receive([credit], block=True)
                if message is not None:
                    break
            if message.get("gone"):
                log.append(message)

    with running({"http.request": handler}) as site:
        with site.raw() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.read_until(b"\r\n\r\n")
        wait_until(lambda: log, "word that the client left")
        site.application.wait_for("http.disconnect")


def test_parts_without_content_keep_no_answer_alive() -> None:
    """A worker sends them to learn whether the client is there."""
    over = threading.Event()

    def handler(call: Call) -> None:
        call.now(status=200, headers=[], content=b"x", more_content=True)
        while not over.wait(0.05):
            call.now(content=b"", more_content=True)

    with running({"http.request": handler}, InterfaceConfig(http_timeout=0.5)) as site, site.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_to_end().endswith(b"\r\n\r\n1\r\nx\r\n")
        assert site.count("http.response_stalled") == 1
        over.set()


def test_a_reply_to_nobody_is_answered_with_gone() -> None:
    with running({}) as site:
        channel = site.layer.new_channel("http.response!")
        credit = site.layer.new_channel("http.response.credit?")
        site.layer.send(channel, {"content": b"x", "more_content": True, "credit_channel": credit})
        assert site.layer.receive([credit], block=True) == (credit, {"gone": True})


def test_a_response_that_piles_up_is_cut_off() -> None:
    def handler(call: Call) -> None:
        call.now(status=200, headers=[], content=b"x", more_content=True)
        for _ in range(80):
            call.now(content=b"x" * 500_000, more_content=True)

    with running({"http.request": handler}, InterfaceConfig(response_queue=2_000_000)) as site, site.raw() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        site.wait_for_count("http.response_overflow")
        assert len(client.read_to_end()) < 40_000_000


IMPATIENT = InterfaceConfig(limits=Limits(room_patience=0.3))


def test_a_burst_waits_for_room() -> None:
    def slowly(call: Call) -> None:
        threading.Event().wait(0.005)
        call.reply(status=200, headers=[], content=b"")

    with running({"http.request": slowly}, layer_config={"capacity": 5}) as site, ThreadPoolExecutor(60) as threads:
        urls = [site.url] * 100 + [f"{site.url}/upload"] * 20
        bodies = [b""] * 100 + [bytes(300_000)] * 20
        answers = list(threads.map(lambda url, body: httpx.post(url, content=body, timeout=30), urls, bodies))
        assert {each.status_code for each in answers} == {200}


def check_a_request_whose_client_leaves_while_it_waits_for_room_is_not_sent() -> None:
    with running({}, layer_config={"capacity": 1}, threads=0) as site:
        site.layer.send("http.request", {"fills": "it"})
        with site.raw() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            site.wait_for_count("http.requests")
        site.wait_for_count("http.clients_left")
        assert site.layer.receive(["http.request"])[1] == {"fills": "it"}
        with site.raw() as client:
            client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            _, message = wait_until(lambda: _received(site), "the next request")
        assert message["path"] == "/next"


def _received(site: Site) -> tuple[str, dict[str, Any]] | None:
    channel, message = site.layer.receive(["http.request"])
    return None if channel is None or message is None else (channel, message)


def test_full_channel_is_503() -> None:
    with running({}, IMPATIENT, layer_config={"capacity": 1}, threads=0) as site:
        site.layer.send("http.request", {"body": b""})
        response = httpx.get(site.url)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.text == "503 Service Unavailable: please try again soon\n"
        assert site.count("http.refused.503") == 1


def test_a_refused_request_leaves_nothing_behind() -> None:
    with running({}, IMPATIENT, layer_config={"capacity": 1}, threads=0) as site:
        site.layer.send("http.request", {"fills": "it"})
        assert httpx.post(site.url, content=bytes(300_000)).status_code == 503
        site.wait_for_count("http.refused.503")
        assert list(site.layer.queues.queues) == ["http.request"]


def test_lost_broker_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    with running({"http.request": answer()}) as site:

        def down(sends: list[Send]) -> None:
            raise BrokerUnavailable("redis://nowhere", "connection refused")

        with monkeypatch.context() as patched:
            patched.setattr(site.layer.channel_layer, "dispatch", down)
            assert httpx.get(site.url).status_code == 503
        assert httpx.get(site.url).status_code == 200


def test_no_answer_is_504() -> None:
    with running({}, InterfaceConfig(http_timeout=0.3)) as site:
        begun = time.monotonic()
        response = httpx.get(site.url)
        assert response.status_code == 504
        assert 0.2 < time.monotonic() - begun < 5
        assert "Traceback" not in response.text


def test_an_unfinished_response_is_cut_off() -> None:
    handler = answer(more_content=True)
    with running({"http.request": handler}, InterfaceConfig(http_timeout=0.3)) as site:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(site.url)
        assert site.count("http.response_stalled") == 1


def test_an_application_can_cut_its_response_off() -> None:
    def handler(call: Call) -> None:
        call.reply(status=200, headers=[], content=b"half", more_content=True)
        call.reply(content=b"", more_content=False, abort=True)

    with running({"http.request": handler}) as site, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(site.url)


def test_an_application_that_failed_before_it_answered_is_500() -> None:
    def handler(call: Call) -> None:
        call.reply(content=b"", more_content=False, abort=True)

    with running({"http.request": handler}) as site, httpx.Client() as client:
        for _ in range(2):  # on one connection
            response = client.get(site.url)
            assert (response.status_code, response.text) == (500, "500 Internal Server Error\n")


@pytest.mark.parametrize(
    "message",
    [
        {"status": 99},
        {"status": "200"},
        {"status": None},
        {"status": True},
        {"headers": [[b"X-A", b"a\r\nSet-Cookie: evil=1"]]},
        {"headers": [[b"X-A", b"a\0b"]]},
        {"headers": [[b"X A", b"a"]]},
        {"headers": [[b"", b"a"]]},
        {"headers": [["X-A", "\u20ac"]]},
        {"headers": [[b"X-A"]]},
        {"headers": "X-A: a"},
        {"headers": [[b"Content-Length", b"3"]]},
        {"headers": [[b"Content-Length", b"-1"]]},
        {"headers": [[b"Content-Length", b"5"], [b"Content-Length", b"6"]]},
        {"content": 5},
    ],
)
def test_bad_responses_are_502(message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    def handler(call: Call) -> None:
        call.reply(**{"status": 200, "headers": [], "content": b"hello", "more_content": False, **message})

    with running({"http.request": handler}) as site:
        response = httpx.get(site.url)
        assert response.status_code == 502
        assert "evil" not in str(response.headers)
    (record,) = [each for each in caplog.records if each.__dict__.get("action") == "bad_response"]
    assert record.__dict__["connection"].startswith("http.response.")


def test_text_headers_and_content_are_encoded() -> None:
    with running({"http.request": answer(headers=[["X-B", "\u00fc"]], content="gr\u00fcn")}) as site:
        response = httpx.get(site.url)
    assert response.text == "gr\u00fcn"
    assert response.headers.raw[-2] == (b"x-b", b"\xfc")


@pytest.mark.parametrize("status", [204, 304])
def test_no_content_where_there_must_be_none(status: int) -> None:
    handler = answer(status, b"not to be sent", headers=[[b"Content-Length", b"14"]])
    with running({"http.request": handler}) as site, site.raw() as client:
        for _ in range(2):  # the second finds the connection in order
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            head = client.read_until(b"\r\n\r\n").lower()
            assert b" %d " % status in head
            assert b"content-length" not in head


def test_head_has_the_headers_alone() -> None:
    with running({"http.request": answer(headers=[[b"Content-Length", b"5"]])}) as site, site.raw() as client:
        for _ in range(2):
            client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"content-length: 5" in client.read_until(b"\r\n\r\n").lower()


def test_keep_alive_and_pipelining() -> None:
    def handler(call: Call) -> None:
        call.reply(status=200, headers=[], content=call["path"].encode(), more_content=False)

    with running({"http.request": handler}) as site, site.raw() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(5)))
        for number in range(5):
            client.read_until(b"\r\n\r\n")
            assert client.read(2) == b"/%d" % number


def test_too_many_connections_are_503() -> None:
    with running({"http.request": answer()}, InterfaceConfig(max_connections=1)) as site, site.raw() as first:
        first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first.read_until(b"hello")
        with site.raw() as second:
            second.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 503 " in second.read_to_end()
        first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first.read_until(b"hello")


def test_a_group_answers_those_that_wait_and_loses_those_that_left() -> None:
    def poll(call: Call) -> None:
        call.layer.group_add("news", call["reply_channel"])
        if call["path"] == "/joined":
            call.reply(status=200, headers=[], content=b"joined", more_content=False)

    with running({"http.request": poll}) as site, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(httpx.get, f"{site.url}/poll", timeout=20) for _ in range(2)]
        site.application.wait_for("http.request", 2)
        assert httpx.get(f"{site.url}/joined").content == b"joined"
        wait_until(lambda: len(site.layer.group_channels("news")) == 3, "three members")
        news = {"status": 200, "headers": [], "content": b"news", "more_content": False}
        site.layer.send_group("news", news)
        assert [each.result(20).content for each in waiting] == [b"news", b"news"]
        wait_until(lambda: len(site.layer.group_channels("news")) == 2, "the one that was answered before to be gone")
        site.layer.send_group("news", news)
        wait_until(lambda: site.layer.group_channels("news") == [], "the others to be gone, too")


def test_the_access_log_hides_the_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "channelsq.access")
    with running({"http.request": answer()}, InterfaceConfig(access_log=True)) as site:
        httpx.get(f"{site.url}/x?a=1&session_key=secret&b=2")
        wait_until(lambda: "GET" in caplog.text, "an access log line")
    assert '"GET /x?a=1&session_key=***&b=2" 200 5 bytes' in caplog.text
    assert "secret" not in caplog.text


def test_an_answer_under_way_is_finished_when_the_server_ends() -> None:
    entered, go = threading.Event(), threading.Event()

    def handler(call: Call) -> None:
        entered.set()
        assert go.wait(10)
        call.reply(status=200, headers=[], content=b"done", more_content=False)

    answers: list[bytes] = []
    with running({"http.request": handler}) as site:
        client = threading.Thread(target=lambda: answers.append(httpx.get(site.url).content))
        client.start()
        assert entered.wait(10)
        site.server.stop()
        wait_until(lambda: site.server.context.ending, "the server to end")
        go.set()
        client.join(10)
    assert answers == [b"done"]


def test_an_answer_that_does_not_come_does_not_hold_up_the_end() -> None:
    limits = Limits(end_answers=0.3, end_ordered=1, end_all=2)
    with running({}, InterfaceConfig(limits=limits)) as site, site.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        site.application.wait_for("http.request")
        site.server.stop()
        assert client.read_to_end() == b""
        site.application.wait_for("http.disconnect")
