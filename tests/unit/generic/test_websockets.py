"""Generic consumers, as Channels 1.1 documents them."""

from __future__ import annotations

import datetime
import functools
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils.decorators import method_decorator

from channelsq import Channel, Group, exceptions, route_class
from channelsq.asgi import ChannelLayerWrapper
from channelsq.auth import channel_session_user_from_http
from channelsq.exceptions import BadFrame, DenyConnection, SendNotAvailableOnDemultiplexer, WebsocketCloseException
from channelsq.generic import BaseConsumer
from channelsq.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketConsumerDemultiplexer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from channelsq.sessions import channel_session
from channelsq.test import Client, WSClient, apply_routes
from channelsq.utils import name_that_thing
from tests.support.logs import action_of, connection_of


@pytest.fixture(autouse=True)
def sessions_in_memory(settings: Any, channel_layer: ChannelLayerWrapper) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"


# -- BaseConsumer


class Things(BaseConsumer):
    method_mapping = {"test.create": "create", "test.test": "test"}
    trigger = "new"
    called: Any

    def create(self, message: Any, **kwargs: Any) -> None:
        self.called = "create"

    def test(self, message: Any, **kwargs: Any) -> None:
        self.called = "test"
        message.reply_channel.send({"trigger": self.trigger, **kwargs})


def test_base_consumer_calls_the_method_of_the_channel() -> None:
    with apply_routes([route_class(Things)]):
        client = Client()
        assert client.send_and_consume("test.create").called == "create"
        assert client.send_and_consume("test.test").called == "test"
        with pytest.raises(AssertionError, match="no consumer claims"):
            client.send_and_consume("test.other")


def test_base_consumer_has_the_message_and_the_routes_arguments() -> None:
    with apply_routes([route_class(Things, path="^/(?P<room>[a-z]+)")]):
        consumer = Client().send_and_consume("test.create", {"path": "/tea"})
    assert consumer.kwargs == {"room": "tea"}
    assert consumer.message["path"] == "/tea"


def test_channel_names_are_those_of_the_mapping() -> None:
    assert Things.channel_names() == {"test.create", "test.test"}
    assert WebsocketConsumer.channel_names() == {"websocket.connect", "websocket.receive", "websocket.disconnect"}


def test_as_route_with_attributes_is_another_class() -> None:
    changed = Things.as_route({"trigger": "from as_route"}, name="changed")
    plain = Things.as_route(name="plain")
    assert plain.consumer is Things
    assert changed.consumer is not Things
    assert name_that_thing(changed.consumer) == name_that_thing(Things)
    with apply_routes([changed, plain]):
        client = Client()
        client.send_and_consume("test.test", {"name": "changed"})
        assert client.receive() == {"trigger": "from as_route"}
        client.send_and_consume("test.test", {"name": "plain"})
        assert client.receive() == {"trigger": "new"}
    assert Things.trigger == "new"
    with pytest.raises(TypeError, match="attrs must be a dict"):
        Things.as_route("no dict")  # type: ignore[arg-type]


def test_channel_session_of_a_class() -> None:
    class Counting(Things):
        channel_session = True

        def create(self, message: Any, **kwargs: Any) -> None:
            self.message.channel_session["n"] = self.n = message.channel_session.get("n", 0) + 1

    with apply_routes(route_class(Counting)):
        client = Client()
        assert [client.send_and_consume("test.create").n for _ in range(3)] == [1, 2, 3]


def test_methods_can_be_decorated() -> None:
    class Decorated(Things):
        @channel_session
        def create(self, message: Any, **kwargs: Any) -> None:
            self.called = sorted(message.channel_session.keys())

    with apply_routes(route_class(Decorated)):
        assert Client().send_and_consume("test.create").called == []


def quietly(consumer: Any) -> Any:
    """A decorator that is made for functions alone."""

    @functools.wraps(consumer)
    def quiet(message: Any, **kwargs: Any) -> Any:
        message.content["quiet"] = kwargs
        return consumer(message, **kwargs)

    return quiet


def test_a_method_decorated_by_djangos_method_decorator() -> None:
    @method_decorator(quietly, name="connect")
    class Quiet(WebsocketConsumer):
        channel_session = True

        def connect(self, message: Any, **kwargs: Any) -> None:
            super().connect(message, **kwargs)
            self.called = ("connect", message["quiet"], sorted(message.channel_session.keys()))

    with apply_routes([Quiet.as_route(path=PATH)]):
        called = WSClient().send_and_consume("websocket.connect", path="/path/1").called
    assert called == ("connect", {"id": "1"}, [])


def test_a_decorator_in_get_handler_is_for_every_method() -> None:
    class Quiet(Talk):
        def get_handler(self, message: Any, **kwargs: Any) -> Any:
            return quietly(super().get_handler(message, **kwargs))

    handled = []
    with apply_routes([Quiet.as_route(path=PATH)]):
        client = WSClient()
        for channel in ("websocket.connect", "websocket.receive", "websocket.disconnect"):
            consumer = client.send_and_consume(channel, path="/path/1", text="?")
            assert consumer.message["quiet"] == {"id": "1"}
            handled.append(consumer.called if isinstance(consumer.called, str) else consumer.called[0])
    assert handled == ["connect", "receive", "disconnect"]


def test_dispatch_and_channel_names_can_be_overridden() -> None:
    class Odd(BaseConsumer):
        @classmethod
        def channel_names(cls) -> set[str]:
            return {"odd.one", "odd.two"}

        def dispatch(self, message: Any, **kwargs: Any) -> None:
            self.called = (message.channel.name, kwargs)

    with apply_routes([Odd.as_route(name="(?P<name>.+)")]):
        assert Client().send_and_consume("odd.two", {"name": "x"}).called == ("odd.two", {"name": "x"})


# -- WebsocketConsumer


class Talk(WebsocketConsumer):
    called: Any

    def connect(self, message: Any, **kwargs: Any) -> None:
        super().connect(message, **kwargs)
        self.called = "connect"

    def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:  # noqa: A002
        self.called = ("receive", text, bytes, kwargs)

    def disconnect(self, message: Any, **kwargs: Any) -> None:
        self.called = ("disconnect", message.get("code"), kwargs)


PATH = r"^/path/(?P<id>\d+)$"


def test_websocket_consumer_has_a_method_for_each_event() -> None:
    with apply_routes([route_class(Talk, path=PATH)]):
        client = WSClient()
        assert client.send_and_consume("websocket.connect", path="/path/1").called == "connect"
        consumer = client.send_and_consume("websocket.receive", path="/path/1", text="hello")
        assert consumer.called == ("receive", "hello", None, {"id": "1"})
        assert consumer.path == "/path/1"
        consumer = client.send_and_consume("websocket.receive", {"bytes": b"\0"}, path="/path/1")
        assert consumer.called == ("receive", None, b"\0", {"id": "1"})
        consumer = client.send_and_consume("websocket.disconnect", {"code": 1001}, path="/path/1")
        assert consumer.called == ("disconnect", 1001, {"id": "1"})


def test_websocket_consumer_accepts_by_default() -> None:
    with apply_routes([WebsocketConsumer.as_route()]):
        client = WSClient()
        client.send_and_consume("websocket.connect")
        assert client.receive() is None
        client.send_and_consume("websocket.receive", text="nobody listens")
        client.send_and_consume("websocket.disconnect")
        assert client.receive() is None


def test_websocket_consumer_joins_its_groups_and_leaves_them() -> None:
    class Grouped(WebsocketConsumer):
        groups = ["everybody"]

    class Roomed(WebsocketConsumer):
        def connection_groups(self, **kwargs: Any) -> list[str]:
            return [f"room-{kwargs['id']}"]

    for consumer, group in ((Grouped, "everybody"), (Roomed, "room-7")):
        with apply_routes([route_class(consumer, path=PATH)]):
            client = WSClient()
            client.send_and_consume("websocket.connect", path="/path/7")
            Group(group).send({"text": "hello"})
            assert client.receive(json=False) == "hello"
            client.send_and_consume("websocket.disconnect", path="/path/7")
            Group(group).send({"text": "hello"})
            assert client.receive() is None


def test_groups_that_are_a_str_are_refused() -> None:
    class Wrong(WebsocketConsumer):
        groups = "everybody"

    with apply_routes([Wrong.as_route()]), pytest.raises(TypeError, match="must be a list of names, not 'everybody'"):
        WSClient().send_and_consume("websocket.connect")


def test_websocket_consumer_sends_and_closes() -> None:
    class Answers(WebsocketConsumer):
        def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:  # noqa: A002
            self.send(text="one")
            self.send(bytes=b"two")
            self.send(text="three", close=True)
            self.send(text="", close=4001)
            self.close()
            self.close(4002)
            self.close(4003, "why")

    with apply_routes([Answers.as_route()]):
        client = WSClient()
        client.send_and_consume("websocket.receive", text="?")
        received = [Client.receive(client) for _ in range(7)]
    assert received == [
        {"text": "one"},
        {"bytes": b"two"},
        {"text": "three", "close": True},
        {"text": "", "close": 4001},
        {"close": True},
        {"close": 4002},
        {"close": 4003, "reason": "why"},
    ]


def test_a_frame_with_nothing_in_it_is_refused() -> None:
    class Silent(WebsocketConsumer):
        def receive(self, **kwargs: Any) -> None:
            self.send()

    with apply_routes([Silent.as_route()]), pytest.raises(ValueError, match="nothing to send"):
        WSClient().send_and_consume("websocket.receive", text="?")
    with pytest.raises(ValueError, match="nothing to send"):
        WebsocketConsumer.group_send("everybody", close=True)


def test_group_send_of_a_websocket_consumer() -> None:
    client = WSClient()
    client.join_group("everybody")
    WebsocketConsumer.group_send("everybody", text="hello")
    WebsocketConsumer.group_send("everybody", bytes=b"hello", close=True)
    assert Client.receive(client) == {"text": "hello"}
    assert Client.receive(client) == {"bytes": b"hello", "close": True}


def test_strict_ordering_of_a_class() -> None:
    class Ordered(WebsocketConsumer):
        strict_ordering = True

        def connect(self, message: Any, **kwargs: Any) -> None:
            message.reply_channel.send({"order": message["order"]})

    with apply_routes([Ordered.as_route()]):
        client = Client()
        for order in (1, 0):
            client.send("websocket.connect", {"path": "/", "order": order})
        for _ in range(3):
            client.consume("websocket.connect")
        assert [client.receive(), client.receive(), client.receive()] == [{"order": 0}, {"order": 1}, None]


def test_slight_ordering_of_a_class_is_gone() -> None:
    routes = [WebsocketConsumer.as_route({"slight_ordering": True})]
    with apply_routes(routes), pytest.raises(ValueError, match="slight_ordering"):
        WSClient().send_and_consume("websocket.connect")


def test_exceptions_with_an_effect_in_a_method() -> None:
    class Strict(WebsocketConsumer):
        def connect(self, message: Any, **kwargs: Any) -> None:
            raise DenyConnection

        def receive(self, **kwargs: Any) -> None:
            raise WebsocketCloseException(4005)

    with apply_routes([Strict.as_route()]):
        client = WSClient()
        with pytest.raises(DenyConnection):
            client.send_and_consume("websocket.connect")
        client.send_and_consume("websocket.receive", text="?")
        assert client.receive() == {"close": 4005}


# -- users


class Who(WebsocketConsumer):
    def receive(self, **kwargs: Any) -> None:
        self.user = self.message.user
        self.session = getattr(self.message, "http_session", None)


@pytest.mark.django_db
@pytest.mark.parametrize("attribute", ["http_user", "http_user_and_session"])
def test_http_user_of_a_class(attribute: str) -> None:
    alice = get_user_model().objects.create_user("alice")
    with apply_routes([Who.as_route({attribute: True})]):
        client, nobody = WSClient(), WSClient()
        client.force_login(alice)
        client.session["species"] = "cat"
        client.session.save()
        for each in (client, nobody):
            each.send_and_consume("websocket.connect")
        consumer = client.send_and_consume("websocket.receive", text="?")
        assert consumer.user == alice
        assert (consumer.session is not None and consumer.session["species"] == "cat") == (attribute != "http_user")
        assert not nobody.send_and_consume("websocket.receive", text="?").user.is_authenticated


@pytest.mark.django_db
def test_channel_session_user_of_a_class() -> None:
    alice = get_user_model().objects.create_user("alice")

    class Mixed(Who):
        channel_session_user = True

        @channel_session_user_from_http
        def connect(self, message: Any, **kwargs: Any) -> None:
            super().connect(message, **kwargs)

    with apply_routes([Mixed.as_route()]):
        client = WSClient()
        client.force_login(alice)
        client.send_and_consume("websocket.connect")
        assert client.send_and_consume("websocket.receive", text="?").user == alice


# -- JsonWebsocketConsumer


def test_json_websocket_consumer_decodes_and_encodes() -> None:
    class Echo(JsonWebsocketConsumer):
        def receive(self, content: Any, **kwargs: Any) -> None:
            self.content = content
            self.send({"said": content}, close=True)

    with apply_routes([route_class(Echo, path=PATH)]):
        client = WSClient()
        assert client.send_and_consume("websocket.receive", path="/path/1", text=[1, None]).content == [1, None]
        assert Client.receive(client) == {"text": '{"said": [1, null]}', "close": True}


@pytest.mark.parametrize("room", ["é", "x" * 99, "a b"], ids=["é", "long", "space"])
def test_a_url_that_makes_no_name_of_a_group(room: str, caplog: pytest.LogCaptureFixture) -> None:
    r"""A route's ``\w`` lets pass what no name has; that is a refusal, and no failure of the consumer."""

    class Chat(WebsocketConsumer):
        def connection_groups(self, room: str, **kwargs: Any) -> list[str]:
            return [f"chat-{room}"]

    client = WSClient()
    with apply_routes([Chat.as_route(path=r"^/(?P<room>[\w ]+)$")]), caplog.at_level("INFO"):
        with pytest.raises(DenyConnection):
            client.send_and_consume("websocket.connect", path=f"/{room}")
        client.send_and_consume("websocket.disconnect", path=f"/{room}")
    (record,) = [record for record in caplog.records if getattr(record, "action", "") == "bad_group_name"]
    assert connection_of(record) == client.reply_channel


def test_an_application_that_makes_no_name_of_a_group() -> None:
    class Chat(WebsocketConsumer):
        def connection_groups(self, room: str, **kwargs: Any) -> list[str]:
            return [f"chat {room}"]

    with apply_routes([Chat.as_route(path=r"^/(?P<room>\w+)$")]), pytest.raises(TypeError, match="not a group name"):
        WSClient().send_and_consume("websocket.connect", path="/tea")


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        ({"bytes": b"{}"}, {"close": 1003, "reason": "binary, where text is expected"}),
        ({"text": "my secret"}, {"close": 1007, "reason": "text that cannot be decoded"}),
        ({"text": "[" * 200_000}, {"close": 1007, "reason": "text that cannot be decoded"}),
        ({"text": "9" * 10_000}, {"close": 1007, "reason": "text that cannot be decoded"}),
    ],
    ids=["binary", "no json", "deep", "long number"],
)
def test_frames_that_are_no_json(
    frame: dict[str, Any], answer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A close code and one line, without what the client sent and without a traceback."""
    client = WSClient()
    with apply_routes([route_class(JsonWebsocketConsumer, path=PATH)]), caplog.at_level("INFO"):
        client.send_and_consume("websocket.receive", frame, path="/path/1")
    assert Client.receive(client) == answer
    (record,) = [record for record in caplog.records if record.name == "channelsq.worker"]
    assert (action_of(record), connection_of(record)) == ("bad_frame", client.reply_channel)
    assert answer["reason"] in record.getMessage()
    assert "my secret" not in caplog.text
    assert record.exc_info is None


def test_a_consumer_may_answer_bad_frames_itself() -> None:
    class Patient(JsonWebsocketConsumer):
        def bad_frame(self, error: BadFrame, **kwargs: Any) -> None:
            self.send({"error": str(error), **kwargs})

    class PatientStreams(WebsocketDemultiplexer):
        def bad_frame(self, error: BadFrame, **kwargs: Any) -> None:
            self.message.reply_channel.send({"text": str(error)})

    client = WSClient()
    with apply_routes([route_class(Patient, path="^/(?P<room>p)$"), route_class(PatientStreams, path="^/s$")]):
        client.send_and_consume("websocket.receive", text="no json", path="/p")
        assert client.receive() == {"error": "text that cannot be decoded", "room": "p"}
        client.send_and_consume("websocket.receive", text="no json", path="/s")
        assert client.receive(json=False) == "text that cannot be decoded"
        client.send_and_consume("websocket.receive", text={"stream": "none", "payload": {}}, path="/s")
        assert client.receive(json=False) == "for an unknown stream"


def test_json_websocket_consumer_with_a_codec_of_its_own() -> None:
    class Shouting(JsonWebsocketConsumer):
        @classmethod
        def decode_json(cls, text: str) -> Any:
            return {key.upper(): value for key, value in json.loads(text).items()}

        @classmethod
        def encode_json(cls, content: Any) -> str:
            return json.dumps({key.lower(): value for key, value in content.items()})

        def receive(self, content: Any, **kwargs: Any) -> None:
            self.content = content
            self.send({"ANSWER": "hi"})

    with apply_routes([Shouting.as_route()]):
        client = WSClient()
        assert client.send_and_consume("websocket.receive", text={"key": "value"}).content == {"KEY": "value"}
        assert client.receive() == {"answer": "hi"}
        client.join_group("everybody")
        Shouting.group_send("everybody", {"KEY": "VALUE"})
        assert client.receive() == {"key": "VALUE"}


# -- WebsocketDemultiplexer


class Stream(JsonWebsocketConsumer):
    def connect(self, message: Any, multiplexer: Any = None, **kwargs: Any) -> None:
        multiplexer.send({"connected": kwargs})

    def receive(self, content: Any, multiplexer: Any = None, **kwargs: Any) -> None:
        multiplexer.send({"received": content, "stream": multiplexer.stream})

    def disconnect(self, message: Any, multiplexer: Any = None, **kwargs: Any) -> None:
        multiplexer.group_send("others", "left", kwargs)


class Direct(JsonWebsocketConsumer):
    def connect(self, message: Any, **kwargs: Any) -> None:
        pass

    def receive(self, content: Any, **kwargs: Any) -> None:
        self.send(content)


def function(message: Any, multiplexer: Any, **kwargs: Any) -> None:
    if message.channel.name == "websocket.receive":
        multiplexer.send({"text was": message["text"]})


class Demultiplexer(WebsocketDemultiplexer):
    consumers = {"mystream": Stream, "direct": Direct, "function": function}


@pytest.fixture
def demultiplexed() -> Any:
    with apply_routes([route_class(Demultiplexer, path=PATH)]):
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/path/1")
        yield functools.partial(client.send_and_consume, "websocket.receive", path="/path/1"), client


def test_demultiplexer_tells_every_consumer_of_the_sockets_beginning_and_end(demultiplexed: Any) -> None:
    _, client = demultiplexed
    assert client.receive() == {"stream": "mystream", "payload": {"connected": {"id": "1"}}}
    other = WSClient()
    other.join_group("others")
    client.send_and_consume("websocket.disconnect", path="/path/1")
    assert other.receive() == {"stream": "left", "payload": {"id": "1"}}


def test_demultiplexer_hands_a_frame_to_the_consumer_of_its_stream(demultiplexed: Any) -> None:
    say, client = demultiplexed
    client.receive()
    say(text={"stream": "mystream", "payload": {"a": 1}})
    assert client.receive() == {"stream": "mystream", "payload": {"received": {"a": 1}, "stream": "mystream"}}
    say(text={"stream": "function", "payload": {"a": 1}})
    assert client.receive() == {"stream": "function", "payload": {"text was": '{"a": 1}'}}
    assert client.receive() is None


def test_consumers_behind_a_demultiplexer_cannot_send_past_it(demultiplexed: Any) -> None:
    say, client = demultiplexed
    with pytest.raises(SendNotAvailableOnDemultiplexer, match=r"Direct shares its socket.*multiplexer\.send"):
        say(text={"stream": "direct", "payload": {"a": 1}})
    with apply_routes([Direct.as_route()]):  # on a socket of its own it can
        client = WSClient()
        client.send_and_consume("websocket.receive", text={"a": 1})
        assert client.receive() == {"a": 1}


def test_a_demultiplexer_does_not_send_itself() -> None:
    class Wrong(WebsocketDemultiplexer):
        def receive(self, content: Any, **kwargs: Any) -> None:
            self.send(content)

    with apply_routes([Wrong.as_route()]), pytest.raises(SendNotAvailableOnDemultiplexer, match=r"Wrong\.send"):
        WSClient().send_and_consume("websocket.receive", text={})
    with pytest.raises(SendNotAvailableOnDemultiplexer, match=r"WebsocketMultiplexer\.group_send"):
        Wrong.group_send("everybody", "stream", {})


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ({"payload": {}}, "not a JSON object with"),
        ({"stream": "mystream"}, "not a JSON object with"),
        ([1], "not a JSON object with"),
        ({"stream": "other", "payload": {}}, "for an unknown stream"),
        ({"stream": ["mystream"], "payload": {}}, "for an unknown stream"),
        ({"stream": "__class__", "payload": {}}, "for an unknown stream"),
        ({"stream": "mystream", "payload": "text"}, "payload on the stream 'mystream' is not a JSON object"),
    ],
    ids=str,
)
def test_frames_that_are_not_multiplexed_leave_the_other_streams_open(
    demultiplexed: Any, frame: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    exceptions._ignored_frames.reset()
    say, client = demultiplexed
    say(text=frame)
    while (answer := Client.receive(client)) is not None:
        assert "close" not in answer
    assert problem in caplog.text


def test_multiplexer_writes_what_django_writes_as_json() -> None:
    day = datetime.date(2017, 3, 1)
    assert WebsocketMultiplexer.encode("s", {"day": day}) == {
        "text": '{"stream": "s", "payload": {"day": "2017-03-01"}}'
    }
    client = WSClient()
    client.join_group("everybody")
    WebsocketMultiplexer.group_send("everybody", "s", {"day": day}, close=True)
    assert Client.receive(client) == {"text": '{"stream": "s", "payload": {"day": "2017-03-01"}}', "close": True}
    WebsocketMultiplexer("s", Channel(client.reply_channel)).send(1)
    assert client.receive() == {"stream": "s", "payload": 1}


def test_a_demultiplexer_with_a_multiplexer_of_its_own() -> None:
    class Shouting(WebsocketMultiplexer):
        @classmethod
        def encode_json(cls, content: Any) -> str:
            return json.dumps(content).upper()

    class Loud(Demultiplexer):
        multiplexer_class = Shouting

    with apply_routes([route_class(Loud, path=PATH)]):
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/path/1")
        assert client.receive() == {"STREAM": "MYSTREAM", "PAYLOAD": {"CONNECTED": {"ID": "1"}}}


def test_the_other_name_of_the_demultiplexer() -> None:
    assert WebsocketConsumerDemultiplexer is WebsocketDemultiplexer
