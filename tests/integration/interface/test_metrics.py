"""Metrics for Prometheus: counts, times, and waiting messages."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from channelsq.exceptions import ChannelFull
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.layers import KombuChannelLayer, RedisChannelLayer
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.wire.wire_forms import TIMED_KEY
from tests.support.fakes.layers import FakeBrokenLayer, FakeSilentLayer, FakeSlowLayer
from tests.support.interfaces import Call, accept, echo, running
from tests.support.metrics import Metrics
from tests.support.project import Project
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until

ECHO = {"websocket.connect": accept, "websocket.receive": echo}
ON = InterfaceConfig(metrics=True)


def test_sockets_messages_and_bytes() -> None:
    with running(ECHO, ON) as site:
        with connect(site.ws_url, compression=None) as socket:
            before = Metrics(site.url)
            for _ in range(3):
                socket.send("x" * 1000)
                socket.recv(10)
            now = Metrics(site.url)
        assert (now("websockets"), now("websocket_accepted_total")) == (1, 1)
        assert now("websocket_messages_received_total") == now("websocket_messages_sent_total") == 3
        # Workers are asked for their consumers' times.
        assert all(call.message[TIMED_KEY] is True for call in site.application.calls)
        # A frame of 1000 bytes has a head of 4, and a mask of 4 if it comes from a client.
        assert now("websocket_received_bytes_total") - before("websocket_received_bytes_total") == 3 * 1008
        assert now("websocket_sent_bytes_total") - before("websocket_sent_bytes_total") == 3 * 1004
        site.wait_for_count("websocket.ended")
        site.application.wait_for("websocket.disconnect")
        wait_until(lambda: not Metrics(site.url)("websockets"), "the socket to be gone")


def test_times_by_channel() -> None:
    gate = threading.Event()

    def slow(call: Call) -> None:
        gate.wait(0.3)
        call.reply(text="done")

    with running({**ECHO, "websocket.receive": slow}, ON) as site:
        with connect(site.ws_url) as socket:
            for _ in range(2):
                socket.send("x")
                socket.recv(10)
        site.application.wait_for("websocket.disconnect")
        wait_until(lambda: Metrics(site.url)("reply_seconds_count", channel="websocket.disconnect"), "the last report")
        now = Metrics(site.url)
    for channel, count in (("websocket.connect", 1), ("websocket.receive", 2), ("websocket.disconnect", 1)):
        assert now("reply_seconds_count", channel=channel) == now("publish_seconds_count", channel=channel) == count
    assert now("reply_seconds_sum", channel="websocket.receive") > 0.59
    assert now("reply_seconds_bucket", channel="websocket.receive", le="0.25") == 0
    assert now("publish_seconds_sum") < now("reply_seconds_sum")
    assert now("reply_seconds_count", channel="http.request") == 0


def test_a_message_that_waits_for_room_is_measured_until_the_broker_has_it() -> None:
    with running(ECHO, ON, threads=1) as site, connect(site.ws_url) as socket:
        layer = site.layer.channel_layer
        dispatch = layer.dispatch
        full = threading.Event()
        full.set()

        def sometimes(sends: list[Send]) -> None:
            if full.is_set() and sends[0].target == "websocket.receive":
                raise ChannelFull("websocket.receive", 1)
            dispatch(sends)

        layer.dispatch = sometimes  # type: ignore[method-assign,assignment]
        socket.send("held up")
        site.wait_for_count("link.full", 3)
        assert Metrics(site.url)("publish_seconds_count", channel="websocket.receive") == 0
        full.clear()
        assert socket.recv(10) == "held up"
        now = Metrics(site.url)
        assert now("publish_seconds_count", channel="websocket.receive") == 1
        # The first two waits are of 0.05 s and more.
        assert now("publish_seconds_sum", channel="websocket.receive") > 0.1
        assert now("publish_failures_total", reason="channel_full") >= 3


def test_a_report_that_nobody_waits_for_any_more_is_not_measured() -> None:
    config = InterfaceConfig(metrics=True, order_timeout=0.5)
    late = threading.Event()

    def receive(call: Call) -> None:
        if call["text"] == "slow":
            late.wait(10)
        call.reply(text=call["text"])

    with running({**ECHO, "websocket.receive": receive}, config) as site:
        with connect(site.ws_url) as socket:
            socket.send("slow")
            socket.send("quick")
            assert socket.recv(10) == "quick"
            late.set()
            assert socket.recv(10) == "slow"
            socket.send("last")
            assert socket.recv(10) == "last"
        wait_until(lambda: Metrics(site.url)("reply_seconds_count", channel="websocket.disconnect"), "the last report")
        now = Metrics(site.url)
        assert now("websocket_overdue_total") == 1
        assert now("publish_seconds_count", channel="websocket.receive") == 3
        assert now("reply_seconds_count", channel="websocket.receive") == 2


@pytest.mark.parametrize("way", ["threads", pytest.param("streams", marks=pytest.mark.redis)])
def test_on_every_way_to_the_broker(way: str, request: pytest.FixtureRequest) -> None:
    prefix = secrets.token_hex(4)

    def make_layer(**config: Any) -> BaseChannelLayer:
        if way == "threads":
            return KombuChannelLayer(url="memory://", prefix=prefix, **config)
        url = request.getfixturevalue("redis_url").replace("redis:", "redis-streams:")
        return RedisChannelLayer(url=url, prefix=prefix, **config)

    with running(ECHO, ON, make_layer=make_layer) as site:
        with connect(site.ws_url) as socket:
            for _ in range(5):
                socket.send("x")
                assert socket.recv(10) == "x"
        site.application.wait_for("websocket.disconnect")
        wait_until(lambda: Metrics(site.url)("reply_seconds_count", channel="websocket.disconnect"), "the last report")
        now = Metrics(site.url)
        for channel, count in (("websocket.connect", 1), ("websocket.receive", 5), ("websocket.disconnect", 1)):
            assert now("reply_seconds_count", channel=channel) == now("publish_seconds_count", channel=channel) == count
        assert len(now.values("queue_messages")) == 5


def test_http_responses_by_status() -> None:
    def answer(call: Call) -> None:
        time.sleep(0.1 if call["path"] == "/slow" else 0)
        status = 404 if call["path"] == "/nothing" else 200
        call.reply(status=status, headers=[], content=b"12345")

    def in_parts(call: Call) -> None:
        if call["path"] != "/parts":
            answer(call)
            return
        call.now(status=200, headers=[], content=b"a", more_content=True)
        time.sleep(0.1)
        call.now(content=b"b")

    with running({"http.request": in_parts}, ON) as site:
        for path in ("/", "/", "/slow", "/nothing"):
            httpx.get(site.url + path)
        now = Metrics(site.url)
        assert now("http_requests_total") == 4
        assert now("http_responses_total", status="200") == 3
        assert now("http_responses_total", status="404") == 1
        assert now("http_sent_bytes_total") == 20
        assert now("http_received_bytes_total") > 200
        assert now("http_request_seconds_count") == now("reply_seconds_count", channel="http.request") == 4
        assert now("http_request_seconds_sum") >= 0.1
        assert httpx.get(site.url + "/parts").text == "ab"
        # It is over a moment after the client has all of it.
        then = wait_until(
            lambda: found if (found := Metrics(site.url))("http_request_seconds_count") == 5 else None, "its end"
        )
        assert then("publish_seconds_count", channel="http.request") == 5
        replies, requests = "reply_seconds_sum", "http_request_seconds_sum"
        assert then(requests) - now(requests) >= 0.1
        assert then(replies, channel="http.request") - now(replies, channel="http.request") < then(requests) - now(
            requests
        )
        # A body that comes in parts is asked in another way.
        assert httpx.post(site.url + "/", content=iter([b"x" * 300_000])).status_code == 200
        last = wait_until(
            lambda: found if (found := Metrics(site.url))("http_request_seconds_count") == 6 else None, "its end"
        )
        assert last("publish_seconds_count", channel="http.request") == 6
        assert last("reply_seconds_count", channel="http.request") == 6


def test_refusals_have_their_reasons() -> None:
    config = replace(ON, limits=Limits(room_patience=0.3))
    refusing = {"websocket.connect": lambda call: call.reply(close=True)}
    with running(refusing, config, {"capacity": 1}, threads=0) as site:
        with pytest.raises(InvalidStatus, match="403"):
            connect(site.ws_url, origin=Origin("https://evil.example"))
        site.layer.send("http.request", {"reply_channel": "nobody"})
        assert httpx.get(site.url).status_code == 503
        with site.raw() as client:
            client.send(b"nonsense\r\n\r\n")
            client.read_to_end()
        now = Metrics(site.url)
        assert now("refused_total", protocol="websocket", status="403", reason="foreign_origin") == 1
        assert now("refused_total", protocol="http", status="503", reason="unavailable") == 1
        assert now("refused_total", protocol="http", status="400", reason="bad_request") == 1
        assert now("refused_total") == 3
        assert now("publish_failures_total", reason="channel_full") >= 1  # it waits for room, and tries again
        assert now("http_responses_total", status="503") == 1
        assert now("queue_messages", channel="http.request") == 1


def test_who_asks_for_depths_waits_a_second_and_asks_once() -> None:
    with running(ECHO, ON, make_layer=FakeSlowLayer) as site:
        layer: Any = site.layer.channel_layer
        begun = time.monotonic()
        for _ in range(2):
            assert Metrics(site.url).values("queue_messages") == []
        assert time.monotonic() - begun < 5
        assert layer.asked == 1
        layer.go.set()
        wait_until(lambda: len(Metrics(site.url).values("queue_messages")) == 5, "all depths")


@pytest.mark.parametrize("layer", [FakeSilentLayer, FakeBrokenLayer])
def test_depths_that_are_not_known_are_left_out(
    layer: type[BaseChannelLayer], caplog: pytest.LogCaptureFixture
) -> None:
    with running(ECHO, ON, make_layer=layer) as site:
        now = Metrics(site.url)
    assert now.values("queue_messages") == []
    assert now("broker_reachable") == 1
    assert ("never heard of it" in caplog.text) == (layer is FakeBrokenLayer)


@pytest.mark.parametrize("config", [InterfaceConfig(), InterfaceConfig(metrics=True, status_path="")])
def test_nothing_is_measured_unless_somebody_can_ask(config: InterfaceConfig) -> None:
    with running(ECHO, config) as site, connect(site.ws_url) as socket:
        socket.send("x")
        assert socket.recv(10) == "x"
        assert site.server.context.measures is None
        assert all(TIMED_KEY not in call.message for call in site.application.calls)


# -- with Redis and Celery's workers ---------------------------------------------------------------


@pytest.fixture
def redis_of_our_own(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.mark.redis
def test_on_streams(redis_of_our_own: RedisServer, tmp_path: Path) -> None:
    project = Project(tmp_path, redis_of_our_own.url.replace("redis:", "redis-streams:"))
    try:
        project.start_interface("--metrics")
        pending = threading.Thread(target=lambda: httpx.get(project.url, timeout=60), daemon=True)
        pending.start()
        wait_until(lambda: Metrics(project.url)("queue_messages", channel="http.request") == 1, "a request that waits")
        assert Metrics(project.url)("http_waiting") == 1
        project.start_worker()
        pending.join(30)
        wait_until(lambda: not Metrics(project.url)("queue_messages"), "nothing to wait")
        with connect(project.ws_url + "/count/1/") as socket:
            for n in range(20):
                socket.send(str(n))
                assert socket.recv(30) == str(n)
        wait_until(lambda: Metrics(project.url)("reply_seconds_count", channel="websocket.disconnect"), "its end")
        now = Metrics(project.url)
        for channel, count in (("websocket.receive", 20), ("websocket.connect", 1), ("http.request", 1)):
            assert now("publish_seconds_count", channel=channel) == count
            assert now("reply_seconds_count", channel=channel) == count
        # Each consumer sleeps for 5 ms.
        assert now("reply_seconds_sum", channel="websocket.receive") >= 20 * 0.005
        assert now("reply_seconds_bucket", channel="websocket.receive", le="0.0025") == 0
        for channel, count in (("websocket.receive", 20), ("websocket.connect", 1), ("websocket.disconnect", 1)):
            assert now("consumer_seconds_count", channel=channel) == count
        assert now("consumer_seconds_bucket", channel="websocket.receive", le="0.0025") == 0
        took = now("consumer_seconds_sum", channel="websocket.receive")
        assert 20 * 0.005 <= took < now("reply_seconds_sum", channel="websocket.receive")

        # A broker that is frozen, then away: the page is answered all the same.
        process = redis_of_our_own.process
        assert process is not None
        process.signal(signal.SIGSTOP)
        begun = time.monotonic()
        assert Metrics(project.url).values("queue_messages") == []
        assert time.monotonic() - begun < 5
        process.signal(signal.SIGCONT)
        wait_until(lambda: Metrics(project.url).values("queue_messages"), "depths again")
        redis_of_our_own.stop()
        wait_until(lambda: not Metrics(project.url)("broker_reachable"), "it to notice")
        assert Metrics(project.url).values("queue_messages") == []
    finally:
        project.stop()
