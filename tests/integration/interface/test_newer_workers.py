"""An interface server beside newer workers: fields that it does not know, and envelopes that it is too old to read."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import httpx
import msgpack
import pytest
import redis
from websockets.sync.client import connect

from channelsq.core import wire_version
from channelsq.layers import BaseChannelLayer, InMemoryChannelLayer, RedisChannelLayer
from tests.support.interfaces import Call, running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis

UNHEARD = {"unheard": {"of": [1, b"2"]}, "channelsq.unheard": None}


def answer(call: Call) -> None:
    call.now(status=200, headers=[], content=b"in ", more_content=True, **UNHEARD)
    call.reply(content=b"parts", more_content=False, **UNHEARD)


def answer_at_once(call: Call) -> None:
    call.reply(status=200, headers=[], content=b"whole", more_content=False, **UNHEARD)


def accept(call: Call) -> None:
    call.reply(accept=True, **UNHEARD)


def echo(call: Call) -> None:
    call.reply(text=call["text"], **UNHEARD)
    call.reply(close=call["text"] == "end", **UNHEARD)


@pytest.fixture(params=["memory", "redis-streams"])
def make_layer(request: pytest.FixtureRequest) -> Callable[..., BaseChannelLayer]:
    if request.param == "memory":
        return InMemoryChannelLayer
    url = request.getfixturevalue("redis_url").replace("redis:", "redis-streams:")
    return lambda **config: RedisChannelLayer(url=url, prefix=secrets.token_hex(4), **config)


@pytest.mark.parametrize(("handler", "body"), [(answer, b"in parts"), (answer_at_once, b"whole")])
def test_answers_with_keys_that_it_does_not_know(make_layer: Any, handler: Any, body: bytes) -> None:
    with running({"http.request": handler}, make_layer=make_layer) as site:
        response = httpx.get(site.url)
        assert (response.status_code, response.content) == (200, body)


def test_frames_with_keys_that_it_does_not_know(make_layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    handlers = {"websocket.connect": accept, "websocket.receive": echo}
    with running(handlers, make_layer=make_layer) as site, connect(site.ws_url) as socket:
        for text in ("a", "b", "end"):
            socket.send(text)
            assert socket.recv(10) == text
        with pytest.raises(Exception, match="1000"):
            socket.recv(10)
        assert site.count("websocket.bad_replies") == 0
    assert "was ignored" not in caplog.text


@pytest.mark.parametrize("make_layer", ["redis-streams"], indirect=True)
def test_envelopes_that_it_is_too_old_for(
    make_layer: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire_version.teller, "_logged_at", {})
    newer = msgpack.packb([2, {"a": "form"}, b"of the next release"])
    handlers = {"websocket.connect": accept, "websocket.receive": echo}
    with redis.Redis.from_url(redis_url) as client:
        with running(handlers, make_layer=make_layer) as site, connect(site.ws_url) as socket:
            queue = site.layer.queue(site.application.wait_for("websocket.connect")[0]["reply_channel"]).name
            for _ in range(3):
                client.xadd(f"stream:{queue}", {"m": newer, "x": 60_000})
            socket.send("a")
            assert socket.recv(10) == "a"
            site.wait_for_count("replies.foreign", 3)
            wait_until(lambda: client.xlen(f"stream-dead:{queue}") == 3, "the dead letters")
            socket.send("b")
            assert socket.recv(10) == "b"
            assert site.count("replies.foreign") == 3
        ((_, letter), *_) = client.xrange(f"stream-dead:{queue}")
        assert (letter[b"m"], letter[b"s"], letter[b"d"]) == (newer, queue.encode(), b"0")
        assert b"needs wire version 2" in letter[b"r"]
        assert 0 < client.ttl(f"stream-dead:{queue}") <= 86_400
        client.delete(f"stream-dead:{queue}")
    told = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "newer_wire"]
    assert len(told) == 1
    assert "for clients of this process is kept as a dead letter: it needs wire version 2" in told[0]
    assert "update this process" in told[0]
