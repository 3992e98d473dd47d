from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from django.test import override_settings
from django.utils.decorators import method_decorator

from channelsq import consumer, route, route_class
from channelsq.exceptions import DenyConnection
from channelsq.generic.websockets import WebsocketConsumer, WebsocketDemultiplexer
from channelsq.message import Message
from channelsq.options import ATTRIBUTE
from channelsq.routing import Router
from channelsq.security.websockets import (
    AllowedHostsOnlyOriginValidator,
    BaseOriginValidator,
    allowed_hosts_only,
)
from channelsq.test import WSClient
from channelsq.utils import name_that_thing
from tests.support.layers import installed, message_on, replies, wrapped
from tests.support.logs import action_of


@pytest.fixture(autouse=True)
def _site() -> Iterator[None]:
    with override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False):
        yield


def handshake(*origins: bytes, channel: str = "websocket.connect", headers: Any = None) -> Message:
    if headers is None:
        headers = [[b"host", b"example.com"], *([b"origin", origin] for origin in origins)]
    return Message({"path": "/chat/", "headers": headers}, channel, wrapped())


@allowed_hosts_only
def connect(message: Message, room: str = "") -> str:
    """Lets somebody in."""
    return f"let into {room}"


def lets_in(message: Message) -> bool:
    try:
        return bool(connect(message))
    except DenyConnection:
        return False


def test_an_allowed_origin_reaches_the_consumer_with_its_arguments() -> None:
    assert connect(handshake(b"https://example.com"), room="tea") == "let into tea"
    assert connect(handshake(b"https://example.com"), "tea") == "let into tea"


def test_another_origin_is_denied_and_the_consumer_does_not_run(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[Message] = []
    with pytest.raises(DenyConnection, match=r"the origin 'http://evil\.example' is not allowed"):
        allowed_hosts_only(ran.append)(handshake(b"http://evil.example"))
    assert ran == []
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("channelsq.security", logging.WARNING)
    assert record.getMessage() == "a WebSocket on '/chat/' was refused: the origin 'http://evil.example' is not allowed"
    assert action_of(record) == "origin_refused"


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        {},
        [[]],
        [[b"origin"]],
        [[b"origin", b""]],
        [[b"origin", b"\xc3\xa4"]],
        [[b"origin", "http://exämple.com".encode()]],
        [[b"origin", None]],
        ["origin"],
        [[b"x-origin", b"http://example.com"]],
        [[b"origin", b"http://example.com"], [b"origin", b"http://evil.example"]],
        [[b"origin", b"http://example.com"], [b"Origin", b"http://example.com"]],
    ],
    ids=repr,
)
def test_no_origin_a_bad_one_and_several_are_denied(headers: Any) -> None:
    content = {"headers": headers} if headers is not None else {}
    with pytest.raises(DenyConnection, match="Origin"):
        connect(Message(content, "websocket.connect", wrapped()))


@pytest.mark.parametrize(
    "headers",
    [
        [[b"Origin", b"http://example.com"]],
        [(b"origin", b"http://example.com")],
        [["origin", "http://example.com"]],
        {"origin": b"http://example.com"},
        {"Origin": "http://example.com"},
        {b"origin": b"http://example.com"},
    ],
    ids=repr,
)
def test_headers_in_every_form_that_messages_have_them_in(headers: Any) -> None:
    assert lets_in(handshake(headers=headers))


@pytest.mark.parametrize(
    ("allowed", "origin", "taken"),
    [
        # The port and the scheme do not count, nor do case and a dot at the end.
        (["example.com"], b"http://example.com", True),
        (["example.com"], b"https://example.com:8443", True),
        (["example.com"], b"HTTPS://EXAMPLE.com", True),
        (["EXAMPLE.com"], b"https://example.com", True),
        (["example.com"], b"https://example.com.", True),
        (["example.com"], b"https://example.com/", True),
        # What only looks alike.
        (["example.com"], b"https://www.example.com", False),
        (["example.com"], b"https://example.com.evil.example", False),
        (["example.com"], b"https://example.com@evil.example", False),
        (["example.com"], b"https://evil.example@example.com", False),
        (["example.com"], b"https://evil.example/example.com", False),
        (["example.com"], b"https://evil.example#example.com", False),
        (["example.com"], b"https://evil.example\\example.com", False),
        (["example.com"], b"https://notexample.com", False),
        (["example.com"], b"https://example.com:port", False),
        (["example.com"], b"example.com", False),
        (["example.com"], b"//example.com", True),
        # A domain with all below it.
        ([".example.com"], b"https://a.b.example.com", True),
        ([".example.com"], b"https://example.com", True),
        ([".example.com"], b"https://notexample.com", False),
        # Any host; but no host is none.
        (["*"], b"https://any.example:1", True),
        (["*"], b"null", False),
        (["*"], b"file://", False),
        (["*"], b"about:blank", False),
        # Addresses.
        (["192.0.2.1"], b"http://192.0.2.1:8000", True),
        (["[::1]"], b"http://[::1]:8000", True),
        (["[2001:db8::1]"], b"http://[2001:DB8::1]", True),
        (["[::1]"], b"http://[::2]", False),
        (["*"], b"http://[::1", False),
        (["*"], b"http://::1]", False),
        # Names in other scripts come in their ASCII form, as they do in Host.
        (["xn--mnchen-3ya.de"], b"https://xn--mnchen-3ya.de", True),
        (["münchen.de"], b"https://xn--mnchen-3ya.de", False),
        # Other schemes have hosts as well.
        (["abcdefgh"], b"chrome-extension://abcdefgh", True),
        (["example.com"], b"chrome-extension://abcdefgh", False),
        ([], b"http://localhost", False),
    ],
)
def test_allowed_hosts_are_read_by_djangos_rules(allowed: list[str], origin: bytes, taken: bool) -> None:
    with override_settings(ALLOWED_HOSTS=allowed):
        assert lets_in(handshake(origin)) is taken


@pytest.mark.parametrize(
    ("origin", "taken"),
    [
        (b"http://localhost:8000", True),
        (b"http://127.0.0.1:8000", True),
        (b"http://[::1]:8000", True),
        (b"http://a.localhost", True),
        (b"http://example.com", False),
    ],
)
def test_an_empty_list_under_debug_is_localhost(origin: bytes, taken: bool) -> None:
    with override_settings(ALLOWED_HOSTS=[], DEBUG=True):
        assert lets_in(handshake(origin)) is taken
    with override_settings(ALLOWED_HOSTS=["other.example"], DEBUG=True):
        assert not lets_in(handshake(origin))


# -- the shape that Channels 1 gave it ------------------------------------------------------------------------


def test_names_and_attributes() -> None:
    assert allowed_hosts_only is AllowedHostsOnlyOriginValidator
    assert issubclass(AllowedHostsOnlyOriginValidator, BaseOriginValidator)

    def function(message: Message) -> None:
        """Says."""

    function.mark = 1  # type: ignore[attr-defined]
    validator = allowed_hosts_only(function)
    assert isinstance(validator, AllowedHostsOnlyOriginValidator)
    assert validator.func is function
    assert (validator.__name__, validator.__doc__, validator.mark) == ("function", "Says.", 1)  # type: ignore[attr-defined]
    assert validator.__wrapped__ is function  # type: ignore[attr-defined]
    assert not hasattr(validator, "channel_names")


def test_get_header_gives_the_values_or_raises_key_error() -> None:
    validator: Any = connect
    message = handshake(headers=[[b"x-a", b"1"], [b"X-A", b"2"], [b"host", b"h"]])
    assert validator.get_header(message, b"x-a") == [b"1", b"2"]
    assert validator.get_header(message, b"host") == [b"h"]
    with pytest.raises(KeyError, match="x-b"):
        validator.get_header(message, b"x-b")


def test_get_origin_gives_text() -> None:
    validator: Any = connect
    assert validator.get_origin(handshake(b"https://example.com:1")) == "https://example.com:1"


def test_the_base_class_needs_validate_origin() -> None:
    with pytest.raises(NotImplementedError, match="validate_origin"):
        BaseOriginValidator(lambda message: None)(handshake(b"http://example.com"))


def test_a_subclass_decides_by_message_and_origin() -> None:
    class SameHost(BaseOriginValidator):
        def validate_origin(self, message: Message, origin: str) -> bool:
            return origin.encode().partition(b"//")[2] == self.get_header(message, b"host")[0]

    @SameHost
    def connect(message: Message) -> str:
        return "in"

    assert connect(handshake(b"https://example.com")) == "in"
    with pytest.raises(DenyConnection):
        connect(handshake(b"https://www.example.com"))


def test_a_subclass_may_let_in_who_sends_no_origin() -> None:
    class Programs(AllowedHostsOnlyOriginValidator):
        def get_origin(self, message: Message) -> str:
            try:
                self.get_header(message, b"origin")
            except KeyError:
                return "none"
            return super().get_origin(message)

        def validate_origin(self, message: Message, origin: str) -> bool:
            return origin == "none" or super().validate_origin(message, origin)

    validator = Programs(lambda message: "in")
    assert validator(handshake()) == validator(handshake(b"http://example.com")) == "in"
    with pytest.raises(DenyConnection):
        validator(handshake(b"http://evil.example"))


# -- as a decorator of what else there is ---------------------------------------------------------------------


class Base:
    """A stand-in with the attributes of a generic consumer that a router and a decorator use."""

    seen: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, message: Message, **kwargs: Any) -> None:
        self.seen.append((message.channel_name, kwargs))
        getattr(self, message.channel_name.partition(".")[2])(message, **kwargs)

    @classmethod
    def channel_names(cls) -> set[str]:
        return {"websocket.connect", "websocket.receive"}

    @classmethod
    def as_route(cls, attrs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        return route_class(type(cls.__name__, (cls,), attrs or {}), **kwargs)

    def connect(self, message: Message, **kwargs: Any) -> None: ...

    def receive(self, message: Message, **kwargs: Any) -> None: ...


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Base.seen.clear()


def test_on_a_method() -> None:
    class Chat(Base):
        name = "chat"

        @allowed_hosts_only
        def connect(self, message: Message, **kwargs: Any) -> None:
            self.seen.append((self.name, kwargs))

    class Child(Chat):
        name = "child"

        def connect(self, message: Message, **kwargs: Any) -> None:
            super().connect(message, **kwargs)

    Chat(handshake(b"http://example.com"), room="tea")
    Child(handshake(b"http://example.com"))
    assert Base.seen[1::2] == [("chat", {"room": "tea"}), ("child", {})]
    for kind in (Chat, Child):
        with pytest.raises(DenyConnection):
            kind(handshake(b"http://evil.example"))
    Chat(handshake(channel="websocket.receive"))
    assert isinstance(Chat.connect, AllowedHostsOnlyOriginValidator)


@pytest.mark.parametrize("where", ["class", "method"])
def test_through_method_decorator(where: str) -> None:
    if where == "class":

        @method_decorator(allowed_hosts_only, name="connect")
        class Chat(Base):
            def connect(self, message: Message, **kwargs: Any) -> None:
                self.seen.append(("chat", kwargs))

    else:

        class Chat(Base):  # type: ignore[no-redef]
            @method_decorator(allowed_hosts_only)
            def connect(self, message: Message, **kwargs: Any) -> None:
                self.seen.append(("chat", kwargs))

    Chat(handshake(b"http://example.com"), room="tea")
    assert Base.seen[-1] == ("chat", {"room": "tea"})
    with pytest.raises(DenyConnection):
        Chat(handshake(b"http://evil.example"))


def test_on_a_class_only_connects_are_looked_at() -> None:
    @allowed_hosts_only
    class Chat(Base):
        """A chat."""

        func = "of the class"

    for entry in (route_class(Chat, path="^/chat"), Chat.as_route(path="^/chat"), Chat.as_route({"name": "x"})):
        router = Router([entry])
        assert router.channels == {"websocket.connect", "websocket.receive"}
        for message in (handshake(b"http://example.com"), handshake(channel="websocket.receive")):
            found = router.match(message)
            assert found is not None
            found[0](message, **found[1])
            assert Base.seen[-1] == (message.channel_name, {})
        message = handshake(b"http://evil.example")
        found = router.match(message)
        assert found is not None
        with pytest.raises(DenyConnection):
            found[0](message, **found[1])
    assert Chat.func.func == "of the class"  # type: ignore[attr-defined]
    assert Chat.__doc__ == "A chat."


def test_generic_consumers() -> None:
    class Chat(WebsocketConsumer):
        @allowed_hosts_only
        def connect(self, message: Message, **kwargs: Any) -> None:
            super().connect(message, **kwargs)

        def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:  # noqa: A002
            self.send(text="heard")

    @method_decorator(allowed_hosts_only, name="connect")
    class News(WebsocketConsumer):
        pass

    class Whole(WebsocketConsumer):
        groups: ClassVar[list[str]] = ["members"]

    class Shared(WebsocketDemultiplexer):
        consumers: ClassVar[dict[str, Any]] = {}

    layer = wrapped()
    with installed(layer):
        for consumer in (Chat, News, allowed_hosts_only(Whole), allowed_hosts_only(Shared)):
            for entry in (route_class(consumer), consumer.as_route(), consumer.as_route({"strict_ordering": False})):
                good, bad = (
                    message_on(layer, "websocket.connect", headers=[[b"origin", origin]])
                    for origin in (b"http://example.com", b"http://evil.example")
                )
                entry.consumer(good)
                assert replies(layer, good) == [{"accept": True}]
                with pytest.raises(DenyConnection):
                    entry.consumer(bad)
                assert replies(layer, bad) == []
                assert str(bad.reply_channel) not in layer.group_channels("members")
        heard = message_on(layer, "websocket.receive", text="hello")
        Chat(heard)
        assert replies(layer, heard) == [{"text": "heard"}]


@pytest.mark.django_db
def test_the_test_client_has_an_origin_when_it_is_told_to() -> None:
    @allowed_hosts_only
    def accept(message: Message) -> None:
        assert message.reply_channel is not None
        message.reply_channel.send({"accept": True})

    layer = wrapped([route("websocket.connect", accept)])
    with installed(layer):
        client = WSClient()
        with pytest.raises(DenyConnection):
            client.send_and_consume("websocket.connect", path="/")
        client.set_header("origin", b"http://example.com")
        client.send_and_consume("websocket.connect", path="/")
        assert client.receive() is None  # what it gets is the accept, which it has checked


def test_a_decorated_consumer_keeps_its_name_and_its_celery_options() -> None:
    @allowed_hosts_only
    @consumer(rate_limit="1/s")
    def inner(message: Message) -> None: ...

    @consumer(rate_limit="2/s")
    @allowed_hosts_only
    def outer(message: Message) -> None: ...

    assert [getattr(each, ATTRIBUTE)["rate_limit"] for each in (inner, outer)] == ["1/s", "2/s"]
    here = f"{__name__}.test_a_decorated_consumer_keeps_its_name_and_its_celery_options.<locals>"
    assert [name_that_thing(each) for each in (inner, outer)] == [f"{here}.inner", f"{here}.outer"]
    assert name_that_thing(connect) == f"{__name__}.connect"
    assert route("websocket.connect", connect).consumer is connect
