"""Exceptions with an effect, out of the places in which applications raise them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest

from channelsq import Channel
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ConsumeLater, DenyConnection, ResponseLater, WebsocketCloseException
from channelsq.generic import BaseConsumer
from channelsq.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer, WebsocketDemultiplexer
from channelsq.message import Message
from channelsq.security.websockets import allowed_hosts_only
from channelsq.sessions import channel_session
from channelsq.worker.running.execution import run_consumer
from tests.support.layers import drain, installed, message_on, replies, wrapped
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped()
    with installed(layer):
        yield layer


def run(consumer: Callable[..., Any], message: Message) -> list[dict[str, Any]]:
    """Run a consumer as a worker does; gives what its client got."""
    run_consumer(consumer, message, "tests.consumer")
    return replies(message.channel_layer, message)


class Chat(WebsocketConsumer):
    """Raises in each of its methods."""

    def connect(self, message: Message, **kwargs: Any) -> None:
        raise DenyConnection

    def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:  # noqa: A002
        self.send(text="before")
        raise WebsocketCloseException(4001)

    def disconnect(self, message: Message, **kwargs: Any) -> None:
        Channel("left").send({"n": 1})
        raise WebsocketCloseException


@pytest.mark.parametrize("session", [False, True], ids=["plain", "with a session"])
def test_a_generic_consumers_methods(layer: ChannelLayerWrapper, session: bool) -> None:
    consumer = Chat.as_route({"channel_session": session}).consumer
    assert run(consumer, message_on(layer, "websocket.connect")) == [{"close": True}]
    assert run(consumer, message_on(layer, "websocket.receive", text="x")) == [{"text": "before"}, {"close": 4001}]
    assert run(consumer, message_on(layer, "websocket.disconnect")) == [{"close": True}]
    assert drain(layer, "left") == [{"n": 1}]


def test_a_json_consumers_receive(layer: ChannelLayerWrapper) -> None:
    class Json(JsonWebsocketConsumer):
        def receive(self, content: Any, **kwargs: Any) -> None:
            raise WebsocketCloseException(content["code"])

    assert run(Json, message_on(layer, text='{"code": 3000}')) == [{"close": 3000}]


def test_a_consumer_on_a_shared_socket(layer: ChannelLayerWrapper) -> None:
    class Shared(WebsocketDemultiplexer):
        consumers: ClassVar[Mapping[str, Callable[..., Any]]] = {"chat": Chat}

        def connect(self, message: Message, **kwargs: Any) -> None:
            self._call("chat", message, **kwargs)

    class Sender(JsonWebsocketConsumer):
        def receive(self, content: Any, multiplexer: Any = None, **kwargs: Any) -> None:
            multiplexer.send({"n": 1})
            raise WebsocketCloseException(4002)

    class Other(WebsocketDemultiplexer):
        consumers: ClassVar[Mapping[str, Callable[..., Any]]] = {"chat": Sender}

    assert run(Shared, message_on(layer, "websocket.connect")) == [{"close": True}]
    frame = '{"stream": "chat", "payload": {}}'
    assert run(Other, message_on(layer, text=frame)) == [
        {"text": '{"stream": "chat", "payload": {"n": 1}}'},
        {"close": 4002},
    ]


def test_a_base_consumers_method_on_a_channel_of_the_applications_own(layer: ChannelLayerWrapper) -> None:
    class Commands(BaseConsumer):
        method_mapping: ClassVar[Mapping[str, str]] = {"chat.command": "command", "chat.later": "later"}

        def command(self, message: Message, **kwargs: Any) -> None:
            raise WebsocketCloseException(4003)

        def later(self, message: Message, **kwargs: Any) -> None:
            raise ConsumeLater

    assert run(Commands, message_on(layer, "chat.command")) == [{"close": 4003}]
    assert run(Commands, message_on(layer, "chat.later")) == []
    wait_until(lambda: layer.receive(["chat.later"], block=True)[1], "the message to come back")


@pytest.mark.parametrize("outermost", ["origin", "session"])
def test_decorated_consumers(layer: ChannelLayerWrapper, outermost: str) -> None:
    def close(message: Message) -> None:
        message.channel_session["seen"] = True
        raise WebsocketCloseException(4004)

    consumer: Callable[..., Any] = close
    decorators: list[Callable[..., Any]] = [channel_session, allowed_hosts_only]
    for decorator in decorators if outermost == "origin" else reversed(decorators):
        consumer = decorator(consumer)
    good = message_on(layer, "websocket.connect", headers=[[b"origin", b"http://localhost"]])
    bad = message_on(layer, "websocket.connect", headers=[[b"origin", b"http://evil.example"]])
    assert run(consumer, good) == [{"close": 4004}]
    assert run(consumer, bad) == [{"close": True}]


def test_a_decorated_http_consumer_that_answers_later(layer: ChannelLayerWrapper) -> None:
    @channel_session
    def park(message: Message) -> None:
        message.channel_session["parked"] = True
        Channel("parked").send({"client": str(message.reply_channel)})
        raise ResponseLater

    message = message_on(layer, "http.request", reply_channel=layer.new_channel("http.response!"))
    assert run(park, message) == []
    assert drain(layer, "parked") == [{"client": str(message.reply_channel)}]

    seen: list[Any] = []

    @channel_session
    def look(message: Message) -> None:
        seen.append(message.channel_session.get("parked"))

    run(look, message_on(layer, "http.disconnect", reply_channel=str(message.reply_channel)))
    assert seen == [True]
