"""How a socket's messages are made ready for the layer."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.config import read_config
from channelsq.interface.connection import Connection, State
from channelsq.interface.hub import Hub
from channelsq.interface.link import Publication
from channelsq.interface.turns import Turns
from channelsq.layers import InMemoryChannelLayer, codec
from channelsq.layers.base import Send


class Own(InMemoryChannelLayer):
    """A layer that packs in its own way."""

    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        return super().prepare(channel, {**message, "own": True}, delay=delay)


class Loop:
    def time(self) -> float:
        return 1.0


class Link:
    def __init__(self) -> None:
        self.sends: list[Send] = []

    def submit(self, publication: Publication) -> None:
        self.sends.append(publication.send)


class Client:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def fail(self, code: int, reason: str) -> None:
        self.told.append((code, reason))

    def progress(self) -> None:
        self.told.append("progress")


def turns_of(layer: InMemoryChannelLayer) -> tuple[Turns, Connection, Link, Client]:
    hub: Any = Hub(read_config([], {}), ChannelLayerWrapper(layer, "default", []))
    hub.loop, hub.link, client = Loop(), Link(), Client()
    connection = Connection("websocket.send.p!c", "/")
    connection.connect({})
    connection.take()
    connection.done(0)
    connection.state = State.OPEN
    return Turns(hub, connection, client, "/"), connection, hub.link, client  # type: ignore[arg-type]


@pytest.mark.parametrize(("layer", "more"), [(InMemoryChannelLayer, {}), (Own, {"own": True})])
def test_a_layer_with_its_own_way_to_pack_is_asked(layer: type[InMemoryChannelLayer], more: dict[str, Any]) -> None:
    turns, connection, link, _ = turns_of(layer())
    connection.receive("a")
    turns.hand_out()
    (send,) = link.sends
    whole = {"reply_channel": "websocket.send.p!c", "path": "/", "order": 1, "text": "a"}
    assert send.target == "websocket.receive"
    assert codec.unpack(send.body) == {**whole, **more}


@pytest.mark.parametrize("layer", [InMemoryChannelLayer, Own])
def test_a_message_over_the_limit_closes_with_1009(layer: type[InMemoryChannelLayer]) -> None:
    turns, connection, link, client = turns_of(layer(message_size_limit=300))
    order = connection.pass_by()
    assert order is not None
    turns.publish("websocket.receive", "a" * 300, order)
    assert link.sends == []
    assert client.told == [(1009, "message too big"), "progress"]
    assert connection.in_flight is None
