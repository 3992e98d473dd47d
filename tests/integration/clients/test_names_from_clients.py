"""Nothing that a client sends can name a channel or a group that the application did not name."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Group as UserGroup
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from channelsq.asgi import ChannelLayerWrapper
from channelsq.binding.websockets import WebsocketBinding
from channelsq.generic.websockets import JsonWebsocketConsumer, WebsocketDemultiplexer
from channelsq.test import WSClient, apply_routes
from tests.support.bindings import forgotten_afterwards
from tests.support.fakes.layers import RecordingLayer
from tests.support.interfaces import Call, accept, running

VICTIM = "websocket.send.0123456789ab!victim"

#: What a client may hope to be taken for a name, or for a message.
NASTY = [
    VICTIM,
    "room-of-others",
    "jobs",
    "x" * 200,
    "a b",
    "__class__",
    "é",
]


def messages(name: str) -> list[str]:
    """JSON that says ``name`` in every place where a message has one."""
    said: dict[str, Any] = {
        "reply_channel": name,
        "body_channel": name,
        "credit_channel": name,
        "channel": name,
        "group": name,
        "groups": [name],
        "stream": name,
        "payload": {"reply_channel": name, "group": name},
        "done": 0,
        "accept": True,
        "order": -1,
        "text": name,
        "close": True,
        "channelsq.attempts": 99,
    }
    return [json.dumps(said), json.dumps({"stream": name, "payload": said}), json.dumps([said]), json.dumps(name)]


def answer(call: Call) -> None:
    call.reply(status=200, headers=[[b"content-length", b"2"]], content=b"ok", more_content=False)


@pytest.mark.parametrize("name", NASTY)
def test_through_the_interface_server(name: str) -> None:
    """By path, query, headers, cookies, subprotocols, body and frames."""
    handlers = {"http.request": answer, "websocket.connect": accept}
    made: list[RecordingLayer] = []

    def make_layer(**config: Any) -> RecordingLayer:
        made.append(RecordingLayer(**config))
        return made[-1]

    token = "".join(c for c in name if (c.isalnum() and c.isascii()) or c in "-_.!") or "a"
    quoted = httpx.URL("/", params={"x": name}).query.decode().partition("=")[2]
    query = f"reply_channel={quoted}&body_channel={quoted}&order=7&channel={quoted}&group={quoted}"
    headers = {"X-Reply-Channel": token, "Reply-Channel": token, "reply_channel": token, "Cookie": f"group={token}"}
    with running(handlers, make_layer=make_layer) as site:
        url = f"{site.ws_url}/{quoted}?{query}"
        offered = [Subprotocol(token)]
        with connect(url, additional_headers=headers, subprotocols=offered, proxy=None) as socket:
            for text in messages(name):
                socket.send(text)
                socket.send(text.encode())
        for body in messages(name):
            httpx.post(f"{site.url}/{quoted}?{query}", content=body, headers=headers, trust_env=False)
            form = {"reply_channel": name, "body_channel": name}
            httpx.post(f"{site.url}/", data=form, headers=headers, trust_env=False)
        httpx.post(f"{site.url}/", content=b"x" * 600_000, headers={"Body-Channel": token}, trust_env=False)
        site.application.wait_for("websocket.disconnect")
    (layer,) = made
    process = layer.process
    own = (
        f"websocket.send.{process}!",
        f"http.response.{process}!",
        f"http.request.body?{process}",
        "http.request.body?",
    )
    fixed = {"http.request", "http.disconnect", "websocket.connect", "websocket.receive", "websocket.disconnect"}
    assert {target for target, _ in layer.targets if target not in fixed and not target.startswith(own)} == set()
    assert not any(group for _, group in layer.targets)
    assert layer.joined == []
    calls = site.application.calls
    sockets = {call.message["reply_channel"] for call in calls if call.channel.startswith("websocket.")}
    assert len(sockets) == 1
    for call in calls:
        assert call.message["reply_channel"].startswith(own)
        assert (call.message.get("body_channel") or "http.request.body?").startswith("http.request.body?")
        assert name not in call.message["reply_channel"]
    orders = [call.message["order"] for call in calls if call.channel.startswith("websocket.")]
    assert orders == list(range(len(orders)))


@pytest.fixture
def layer(settings: Any) -> Iterator[RecordingLayer]:
    from channelsq.asgi import channel_layers

    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    recording = RecordingLayer()
    wrapped = ChannelLayerWrapper(recording, "default", [])
    before = channel_layers.set("default", wrapped)
    yield recording
    channel_layers.set("default", before)


@pytest.mark.django_db
@pytest.mark.parametrize("name", NASTY)
def test_through_generic_consumers_and_bindings(name: str, layer: RecordingLayer) -> None:
    """By JSON frames: streams, payloads, actions, keys and data."""

    class Echo(JsonWebsocketConsumer):
        def connect(self, message: Any, multiplexer: Any, **kwargs: Any) -> None:
            """The demultiplexer has accepted it."""

        def receive(self, content: Any, multiplexer: Any, **kwargs: Any) -> None:
            multiplexer.send(content)

    with forgotten_afterwards():

        class GroupBinding(WebsocketBinding):
            model = UserGroup
            stream = "groups"
            fields = ["name"]

            @classmethod
            def group_names(cls, instance: Any) -> list[str]:
                return ["bound"]

            def has_permission(self, user: Any, action: str, pk: Any) -> bool:
                return True

        class Streams(WebsocketDemultiplexer):
            groups = ["everybody"]
            consumers = {"echo": Echo, "groups": GroupBinding.consumer}

        client = WSClient()
        payloads = [json.loads(text) for text in messages(name)]
        payloads += [
            {"action": name, "pk": name, "data": {"name": name}},
            {"action": "create", "stream": name, "group": name, "data": {"name": secrets.token_hex(4), "stream": name}},
            {"action": "update", "pk": name, "model": name, "data": {"id": name}},
            {"action": "delete", "pk": name, "groups": [name]},
        ]
        with apply_routes([Streams.as_route()]):
            client.send_and_consume("websocket.connect")
            for payload in payloads:
                for frame in (
                    payload,
                    *({"stream": stream, "payload": payload} for stream in ("echo", "groups", name)),
                ):
                    client.send_and_consume("websocket.receive", text=frame)
            client.send_and_consume("websocket.disconnect")
    asked = {"websocket.connect", "websocket.receive", "websocket.disconnect"}  # by this test itself
    assert {target for target, group in layer.targets if not group} <= asked | {client.reply_channel}
    assert {target for target, group in layer.targets if group} <= {"bound"}
    assert set(layer.joined) == {("everybody", client.reply_channel)}
