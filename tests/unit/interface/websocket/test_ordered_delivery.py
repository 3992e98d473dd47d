"""The messages of a socket are prepared for the layer in order."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.config import read_config
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.websocket.connection_state import Connection, State
from channelsq.interface.websocket.ordered_delivery import OrderedDelivery
from channelsq.layers import InMemoryChannelLayer
from channelsq.layers.wire import codec
from tests.support.fakes.clients import RecordingLink, RecordingSocket
from tests.support.fakes.layers import FakePackingLayer
from tests.support.fakes.loops import FakeLoop


def turns_of(layer: InMemoryChannelLayer) -> tuple[OrderedDelivery, Connection, RecordingLink, RecordingSocket]:
    context: Any = ServerContext(read_config([], {}), ChannelLayerWrapper(layer, "default", []))
    context.loop, context.link, client = FakeLoop(), RecordingLink(), RecordingSocket()
    connection = Connection("websocket.send.p!c", "/")
    connection.connect({})
    connection.take()
    connection.done(0)
    connection.state = State.OPEN
    return OrderedDelivery(context, connection, client, "/"), connection, context.link, client  # type: ignore[arg-type]


@pytest.mark.parametrize(("layer", "more"), [(InMemoryChannelLayer, {}), (FakePackingLayer, {"own": True})])
def test_a_layer_with_its_own_way_to_pack_is_asked(layer: type[InMemoryChannelLayer], more: dict[str, Any]) -> None:
    turns, connection, link, _ = turns_of(layer())
    connection.receive("a")
    turns.hand_out()
    (send,) = link.sends
    whole = {"reply_channel": "websocket.send.p!c", "path": "/", "order": 1, "text": "a"}
    assert send.target == "websocket.receive"
    assert codec.unpack(send.body) == {**whole, **more}


@pytest.mark.parametrize("layer", [InMemoryChannelLayer, FakePackingLayer])
def test_a_message_over_the_limit_closes_with_1009(layer: type[InMemoryChannelLayer]) -> None:
    turns, connection, link, client = turns_of(layer(message_size_limit=300))
    order = connection.pass_by()
    assert order is not None
    turns.publish("websocket.receive", "a" * 300, order)
    assert link.sends == []
    assert client.told == [(1009, "message too big"), "progress"]
    assert connection.in_flight is None
