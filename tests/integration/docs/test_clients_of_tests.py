"""The test client sends what an interface server sends."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from channelsq import route
from channelsq.delivery.attempts import WIRE_KEY
from channelsq.message import Message
from channelsq.test import WSClient, apply_routes
from tests.support.interfaces import Call, accept, running

CHANNELS = ("websocket.connect", "websocket.receive", "websocket.disconnect", "http.request")


def kinds(message: dict[str, Any]) -> dict[str, Any]:
    """The keys of a message, and what kind of value each has."""

    def kind(value: Any) -> Any:
        return [kind(each) for each in value[:1]] if isinstance(value, list) else type(value)

    return {key: kind(value) for key, value in message.items() if key != WIRE_KEY}


@pytest.fixture(scope="module")
def of_the_server() -> dict[str, dict[str, Any]]:
    """Return the messages that an interface server sends to each channel."""

    def answer(call: Call) -> None:
        call.reply(status=200, headers=[], content=b"")

    with running({"websocket.connect": accept, "http.request": answer}) as site:
        with connect(f"{site.ws_url}/chat/?a=b") as client:
            client.send("hello")
            site.application.wait_for("websocket.receive")
        httpx.get(f"{site.url}/chat/?a=b", trust_env=False)
        return {channel: site.application.wait_for(channel)[0] for channel in CHANNELS}


@pytest.mark.parametrize("channel", CHANNELS)
def test_what_a_consumer_sees(of_the_server: dict[str, dict[str, Any]], channel: str) -> None:
    seen: list[dict[str, Any]] = []

    def consumer(message: Message) -> None:
        seen.append(message.content)

    with apply_routes([route(channel, consumer)]):
        client = WSClient(ordered=channel.startswith("websocket."))
        text = "hello" if channel == "websocket.receive" else None
        client.send_and_consume(channel, text=text, path="/chat/?a=b", check_accept=False)
    (message,) = seen
    assert kinds(message) == kinds(of_the_server[channel])
    for key in ("path", "query_string", "root_path", "scheme", "method", "http_version", "text", "body", "code"):
        assert message.get(key) == of_the_server[channel].get(key), key
