"""Tokens that open a WebSocket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Template
from django.test import RequestFactory

from channelsq.asgi import ChannelLayerWrapper
from channelsq.auth import channel_session_user, channel_session_user_from_token, token_user
from channelsq.exceptions import DenyConnection, InvalidToken
from channelsq.generic.websockets import WebsocketConsumer
from channelsq.message import Message
from channelsq.security.tokens import make_token, read_token, token_in, token_view
from channelsq.test import WSClient, apply_routes
from tests.support.logs import action_of, connection_of
from tests.unit.test_sessions import engine as engine
from tests.unit.test_sessions import message

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Any:
    return get_user_model().objects.create_user("alice", password="secret")


def handshake(layer: ChannelLayerWrapper, token: str = "", *, query: str = "", path: str = "/chat/") -> Message:
    """A ``websocket.connect`` with a token among its subprotocols, or in its URL."""
    offered = [[b"sec-websocket-protocol", f"json, channelsq,channelsq.token.{token}".encode()]] if token else []
    content = {
        "reply_channel": "test-reply",
        "path": path,
        "order": 0,
        "headers": [[b"host", b"localhost"], *offered],
        "query_string": query.encode(),
    }
    return Message(content, "websocket.connect", layer)


def user(message: Any) -> Any:
    return message.user


def test_a_token_is_its_users(channel_layer: ChannelLayerWrapper, alice: Any) -> None:
    token = make_token(alice)
    # What a subprotocol may be (RFC 9110, section 5.6.2), and what needs no escapes in a URL.
    assert re.fullmatch(r"[A-Za-z0-9._-]{20,300}", token)
    assert token_user(user)(handshake(channel_layer, token)) == alice
    assert token_user(user)(handshake(channel_layer, query=f"a=1&token={token}")) == alice
    assert isinstance(token_user(user)(handshake(channel_layer)), AnonymousUser)
    said = signing.b64_decode(token.partition(".")[0].encode()).decode()
    assert alice.get_session_auth_hash() not in said, "the session would be known"


def test_the_user_is_the_sockets_from_then_on(channel_layer: ChannelLayerWrapper, alice: Any) -> None:
    assert channel_session_user_from_token(user)(handshake(channel_layer, make_token(alice))) == alice
    for decorator in (channel_session_user, channel_session_user_from_token):
        assert decorator(user)(message(channel_layer)) == alice
    alice.set_password("another")
    alice.save()
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated


def test_nobodys_socket(channel_layer: ChannelLayerWrapper) -> None:
    assert not channel_session_user_from_token(user)(handshake(channel_layer)).is_authenticated
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated


def changed_password(user: Any, settings: Any) -> None:
    user.set_password("another")
    user.save()


def deactivated(user: Any, settings: Any) -> None:
    user.is_active = False
    user.save()


def deleted(user: Any, settings: Any) -> None:
    user.delete()


def another_secret(user: Any, settings: Any) -> None:
    settings.SECRET_KEY = "another"


def expired(user: Any, settings: Any) -> None:
    settings.CHANNEL_TOKEN_AGE = 1e-9


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (changed_password, "another password"),
        (deactivated, "may not log in"),
        (deleted, "may not log in"),
        (another_secret, "not made here"),
        (expired, "expired"),
    ],
)
def test_the_end_of_a_token(
    channel_layer: ChannelLayerWrapper,
    alice: Any,
    settings: Any,
    change: Callable[[Any, Any], None],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = make_token(alice)
    change(alice, settings)
    for decorator in (token_user, channel_session_user_from_token):
        caplog.clear()
        with pytest.raises(InvalidToken, match=problem), caplog.at_level("INFO"):
            decorator(user)(handshake(channel_layer, token))
        (record,) = caplog.records
        assert (action_of(record), connection_of(record)) == ("token_refused", "test-reply")
        assert token not in caplog.text
    assert issubclass(InvalidToken, DenyConnection)
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated


@pytest.mark.parametrize("position", [0, 20, -30, -1])
def test_a_token_that_was_changed(alice: Any, position: int) -> None:
    token = make_token(alice)
    letter = "A" if token[position] != "A" else "E"
    position %= len(token)
    with pytest.raises(InvalidToken, match="not made here"):
        read_token(token[:position] + letter + token[position + 1 :])


@pytest.mark.parametrize(
    "token",
    ["", ".", "a.b.c", "é", "\0", pytest.param(signing.TimestampSigner(sep=".").sign_object([1]), id="signed")],
)
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidToken, match="not made here"):
        read_token(token)


def test_other_signed_things_are_no_tokens(alice: Any) -> None:
    value = [str(alice.pk), 0, "", None]
    for salt in ("django.core.signing", "channelsq.security.tokens.other"):
        with pytest.raises(InvalidToken, match="not made here"):
            read_token(signing.TimestampSigner(sep=".", salt=salt).sign_object(value))
    with pytest.raises(InvalidToken, match="too long"):
        read_token("a" * 1_000_000)


def test_a_token_survives_a_new_secret_key(alice: Any, settings: Any) -> None:
    token = make_token(alice)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "new"
    assert read_token(token) == alice


def test_a_token_for_one_path(channel_layer: ChannelLayerWrapper, alice: Any) -> None:
    token = make_token(alice, path="/chat/tea/")
    assert token_user(user)(handshake(channel_layer, token, path="/chat/tea/")) == alice
    for path in ("/chat/", "/chat/tea", "/chat/tea/../x/"):
        with pytest.raises(InvalidToken, match="for another path"):
            token_user(user)(handshake(channel_layer, token, path=path))


def test_several_backends(alice: Any, settings: Any, rf: RequestFactory) -> None:
    model, other = (f"django.contrib.auth.backends.{name}" for name in ("ModelBackend", "AllowAllUsersModelBackend"))
    settings.AUTHENTICATION_BACKENDS = [model, other]
    with pytest.raises(ValueError, match="say with backend="):
        make_token(alice)
    assert read_token(make_token(alice, backend=other)).backend == other
    request = rf.get("/")
    request.user, request.session = alice, {"_auth_user_backend": other}  # type: ignore[assignment]
    assert read_token(make_token(request)).backend == other


def test_there_is_no_token_for_nobody(rf: RequestFactory) -> None:
    request = rf.get("/")
    for who in (AnonymousUser(), request):
        with pytest.raises(ValueError, match="there is no token"):
            make_token(who)
    request.user = AnonymousUser()
    assert Template("{% load channelsq %}<{% channel_token %}>").render(Context({"request": request})) == "<>"
    with pytest.raises(ValueError, match="needs the request"):
        Template("{% load channelsq %}{% channel_token %}").render(Context())


def test_the_tag(alice: Any, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = alice
    token = Template('{% load channelsq %}{% channel_token path="/a/" %}').render(Context({"request": request}))
    assert read_token(token, "/a/") == alice


def test_the_view(alice: Any, rf: RequestFactory) -> None:
    request = rf.get("/", {"path": "/a/"})
    request.user = AnonymousUser()
    assert token_view(request).status_code == 403
    request.user = alice
    answer: Any = token_view(request)
    assert answer["Cache-Control"] == "no-store"
    assert read_token(json.loads(answer.content)["token"], "/a/") == alice
    assert token_view(rf.post("/")).status_code == 405


def test_where_a_token_is_looked_for(channel_layer: ChannelLayerWrapper) -> None:
    assert token_in(handshake(channel_layer, "one", query="token=two")) == "one"
    assert token_in(handshake(channel_layer, query="token=&a=1")) == ""
    assert token_in(message(channel_layer)) is None
    plain = Message({"headers": {b"sec-websocket-protocol": b"channelsq.token.a"}}, "websocket.connect", channel_layer)
    assert token_in(plain) == "a"


@pytest.mark.parametrize("age", [0, -1, "60", True, float("inf")])
def test_ages_that_are_none(alice: Any, settings: Any, age: Any) -> None:
    settings.CHANNEL_TOKEN_AGE = age
    with pytest.raises(ImproperlyConfigured, match="CHANNEL_TOKEN_AGE must be seconds"):
        read_token(make_token(alice))


def test_a_generic_consumer(channel_layer: ChannelLayerWrapper, alice: Any) -> None:
    class Chat(WebsocketConsumer):
        token_user = True

        def receive(self, text: str | None = None, **kwargs: Any) -> None:
            self.send(text=self.message.user.get_username())

    client = WSClient()
    with apply_routes([Chat.as_route()]):
        client.send_and_consume("websocket.connect", {"query_string": f"token={make_token(alice)}".encode()})
        client.send_and_consume("websocket.receive", text="who am I?")
        assert client.receive(json=False) == "alice"
        with pytest.raises(DenyConnection):
            WSClient().send_and_consume("websocket.connect", {"query_string": b"token=wrong"})
