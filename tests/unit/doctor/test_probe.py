"""The doctor's WebSocket: no application sees it, and nobody else can open one."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import pytest
from django.test import override_settings

from channelsq import route
from channelsq.asgi import ChannelLayerWrapper
from channelsq.doctor import probe
from channelsq.exceptions import DenyConnection, WebsocketCloseException
from channelsq.message import Message
from channelsq.routing import Router
from tests.support.layers import message_on, replies, wrapped


def application(message: Message, **kwargs: Any) -> None:
    raise AssertionError("the application hears of it")


def handle(layer: ChannelLayerWrapper, channel: str, path: str, **content: Any) -> list[dict[str, Any]]:
    """Have the routing's consumer handle a message; gives what it sends."""
    every = ["websocket.connect", "websocket.receive", "websocket.disconnect"]
    router = Router([route(every, application, path="^/"), route(every, application)])
    router.check_default()
    message = message_on(layer, channel, path=path, **content)
    for _ in range(2):  # the answer is kept
        found = router.resolve(message)
        assert found is not None
        assert found.route.consumer is probe.probe_consumer
    assert found is not None
    probe.probe_consumer(message, **found.kwargs)
    return replies(layer, message)


def test_it_is_accepted_and_echoes() -> None:
    layer, path = wrapped(), f"/{probe.new_path()}"
    assert handle(layer, "websocket.connect", path) == [{"accept": True}]
    (echo,) = handle(layer, "websocket.receive", path, text="hello")
    told = json.loads(echo["text"])
    assert told["echo"] == "hello"
    assert told["worker"].endswith(f":{os.getpid()}")
    assert handle(layer, "websocket.disconnect", path) == []
    assert handle(layer, "websocket.connect", f"/below/a/prefix/{probe.new_path()}") == [{"accept": True}]
    assert len(json.loads(handle(layer, "websocket.receive", path, text="x" * 9999)[0]["text"])["echo"]) == 1000


@pytest.mark.parametrize("path", ["channelsq-doctor/1:2:3/", "channelsq-doctor/x/", "channelsq-doctor/%3A/"])
def test_nobody_else_opens_one(path: str) -> None:
    layer = wrapped()
    with pytest.raises(DenyConnection):
        handle(layer, "websocket.connect", f"/{path}")
    with pytest.raises(WebsocketCloseException):
        handle(layer, "websocket.receive", f"/{path}", text="hello")


def test_an_old_path_or_another_sites_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, path = wrapped(), f"/{probe.new_path()}"
    with override_settings(SECRET_KEY="another"), pytest.raises(DenyConnection):
        handle(layer, "websocket.connect", path)
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["for the tests alone"]):
        assert handle(layer, "websocket.connect", path) == [{"accept": True}]
    later = time.time() + probe.AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(DenyConnection):
        handle(layer, "websocket.connect", path)


@pytest.mark.parametrize("path", ["/", "/channelsq-doctor/", "/channelsq-doctor/a/b/", "/chat/channelsq-doctors/x/"])
def test_other_paths_are_the_applications(path: str) -> None:
    router = Router([route("websocket.connect", application)])
    router.check_default()
    assert router.match(message_on(wrapped(), "websocket.connect", path=path)) == (application, {})


def test_long_paths_of_others_are_looked_at_in_no_time() -> None:
    began = time.perf_counter()
    for path in ("/" + "a/" * 30_000, "/" + "a" * 60_000, "/channelsq-doctor/" + "a" * 60_000):
        for _ in range(1000):
            assert re.match(probe.PATH, path) is None
    assert time.perf_counter() - began < 0.5  # a pattern without bounds takes more than that a thousand times
