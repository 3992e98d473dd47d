"""``User``: the sockets of a user, and how they join and close."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import alogout, get_user_model, login, logout, user_logged_out
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.models import User as DjangoUser
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.db import models, transaction
from django.db.models.signals import post_save, pre_save
from django.http import HttpRequest
from django.test import Client as DjangoClient
from django.test import override_settings
from django.test.utils import isolate_apps

from channelsq import Group, User
from channelsq.asgi import ChannelLayerWrapper
from channelsq.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    channel_session_user_from_token,
    http_session_user,
    log_in,
    token_user,
)
from channelsq.core import names
from channelsq.delayed import CHANNEL
from channelsq.exceptions import DenyConnection, InvalidChannelLayerError, WebsocketCloseException
from channelsq.generic.websockets import WebsocketConsumer
from channelsq.live.starting import start
from channelsq.message import Message
from channelsq.security.tokens import make_token
from channelsq.sessions import channel_session
from channelsq.worker.running.execution import run_consumer
from tests.support.layers import drain, installed, wrapped
from tests.support.logs import action_of

pytestmark = pytest.mark.django_db

ALL = {"join": True, "disconnect_on_logout": True, "disconnect_on_password_change": True}


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped()
    with installed(layer), override_settings(CHANNEL_USERS=ALL):
        yield layer


@pytest.fixture
def ann() -> Any:
    return get_user_model().objects.create_user("ann", password="secret")


@pytest.fixture
def bea() -> Any:
    return get_user_model().objects.create_user("bea", password="secret")


# -- groups ------------------------------------------------------------------------------------------


def test_the_group_is_that_of_the_model_and_the_key(layer: ChannelLayerWrapper, ann: Any) -> None:
    assert User(ann).group.name == f"channelsq.user.auth.user.{ann.pk}" == str(User(ann))
    assert repr(User(ann)) == f"User(<{User(ann)}>)"
    same = [ann.pk, str(ann.pk), DjangoUser.objects.defer("username").get(pk=ann.pk)]
    assert {str(User(each)) for each in same} == {str(User(ann))}


def test_a_user_of_a_proxy_model_is_the_same_user(layer: ChannelLayerWrapper, ann: Any) -> None:
    with isolate_apps("app"):

        class Member(DjangoUser):
            class Meta:
                app_label = "app"
                proxy = True

        assert str(User(Member.objects.get(pk=ann.pk))) == str(User(ann))


def test_keys_of_any_kind_have_valid_names(layer: ChannelLayerWrapper) -> None:
    with isolate_apps("app"):

        class Owner(models.Model):
            key = models.CharField(max_length=300, primary_key=True)
            is_authenticated = True

            class Meta:
                app_label = "app"

        keys = [
            uuid.uuid4(),
            "a",
            "A",
            "a b",
            "ä",
            "x" * 300,
            "x" * 299,
            "a/b",
            "a!b",
            "..",
            "-",
            "\udc80",
            b"\xff\x00",
        ]
        found = [str(User(Owner(key=key))) for key in keys]
    for name in found:
        assert names.check_group_name(name) == name
    assert len(set(found)) == len(keys)
    assert found[0] == f"channelsq.user.app.owner.{keys[0]}"
    assert found[3].startswith("channelsq.user-")


@pytest.mark.parametrize(
    "thing", [None, AnonymousUser(), DjangoUser(username="unsaved"), "", "x", True, object(), b"x"]
)
def test_other_things_are_no_users(layer: ChannelLayerWrapper, thing: Any) -> None:
    with pytest.raises(TypeError, match=r"User\(\) takes a"):
        User(thing)


def test_users_of_other_layers(layer: ChannelLayerWrapper, ann: Any) -> None:
    assert User(ann, None).group.channel_layer is layer
    with pytest.raises(InvalidChannelLayerError, match="'nowhere'"):
        User(ann, alias="nowhere")


def test_sends_and_closes_reach_the_sockets(layer: ChannelLayerWrapper, ann: Any) -> None:
    one, two = (layer.new_channel("websocket.send!") for _ in range(2))
    for socket in (one, two):
        User(ann).group.add(socket)
    assert User(ann).sockets() == sorted([one, two])
    User(ann).send({"text": "hello"})
    User(ann).send({"text": "now"}, immediately=True)
    assert User(ann).send({"text": "later"}, delay=60).cancel()
    User(ann).disconnect()
    User(ann).disconnect(4001, "enough")
    expected = [{"text": "hello"}, {"text": "now"}, {"close": 1000}, {"close": 4001, "reason": "enough"}]
    assert drain(layer, one) == drain(layer, two) == expected
    assert layer.writes[2] == [CHANNEL]


@pytest.mark.parametrize("code", [0, 1001, 1005, 1006, 1015, 2999, 5000, True, "1000", None])
def test_codes_that_cannot_be_sent(layer: ChannelLayerWrapper, ann: Any, code: Any) -> None:
    with pytest.raises(ValueError, match="close code"):
        User(ann).disconnect(code)
    with pytest.raises(TypeError, match="reason"):
        User(ann).disconnect(1000, b"x")  # type: ignore[arg-type]


# -- sockets that join by themselves -----------------------------------------------------------------


def session_of(user: Any) -> SessionBase:
    browser = DjangoClient()
    browser.force_login(user)
    return browser.session


def handshake(layer: ChannelLayerWrapper, session: SessionBase | None = None, token: str = "") -> Message:
    headers = [[b"cookie", f"sessionid={session.session_key}".encode()]] if session else []
    content = {
        "reply_channel": layer.new_channel("websocket.send!"),
        "path": "/",
        "headers": headers,
        "query_string": f"token={token}".encode() if token else b"",
        "order": 0,
    }
    return Message(content, "websocket.connect", layer)


def accept(message: Message) -> None:
    message.reply_channel.send({"accept": True})


class Page(WebsocketConsumer):
    http_user = True


class TokenPage(WebsocketConsumer):
    token_user = True


class BothPage(WebsocketConsumer):
    http_user_and_session = True


@pytest.mark.parametrize(
    "consumer",
    [
        channel_session_user_from_http(accept),
        http_session_user(accept),
        channel_and_http_session_user_from_http(accept),
        Page,
        BothPage,
    ],
)
def test_a_socket_joins_its_users_group(layer: ChannelLayerWrapper, ann: Any, consumer: Any) -> None:
    message = handshake(layer, session_of(ann))
    run_consumer(consumer, message, "tests")
    assert User(ann).sockets() == [message.reply_channel.name]
    run_consumer(consumer, handshake(layer), "tests")  # anonymous
    run_consumer(consumer, handshake(layer, SessionStore("unknownsession")), "tests")
    assert len(User(ann).sockets()) == 1


@pytest.mark.parametrize("consumer", [channel_session_user_from_token(accept), token_user(accept), TokenPage])
def test_a_socket_with_a_token_joins(layer: ChannelLayerWrapper, ann: Any, consumer: Any) -> None:
    message = handshake(layer, token=make_token(ann))
    run_consumer(consumer, message, "tests")
    assert User(ann).sockets() == [message.reply_channel.name]
    run_consumer(consumer, handshake(layer), "tests")
    assert len(User(ann).sockets()) == 1


def test_a_member_before_the_accept_leaves(layer: ChannelLayerWrapper, ann: Any) -> None:
    """And not while the consumer runs, which may refuse: a message to the group would accept the handshake."""

    @channel_session_user_from_http
    def consumer(message: Message) -> None:
        message.reply_channel.send({"accept": True})
        User(ann).send({"text": "from the consumer"})
        assert User(ann).sockets() == []

    message = handshake(layer, session_of(ann))
    run_consumer(consumer, message, "tests")
    assert drain(layer, message.reply_channel.name) == [{"accept": True}, {"text": "from the consumer"}, {"done": 0}]


def deny(message: Message) -> None:
    raise DenyConnection


def close(message: Message) -> None:
    message.reply_channel.send({"close": True})


def close_by_exception(message: Message) -> None:
    raise WebsocketCloseException(4000)


def fail(message: Message) -> None:
    accept(message)
    raise LookupError


@pytest.mark.parametrize("consumer", [deny, close, close_by_exception, fail])
def test_a_refused_socket_does_not_join(layer: ChannelLayerWrapper, ann: Any, consumer: Any) -> None:
    decorated = channel_session_user_from_http(consumer)
    with contextlib.suppress(LookupError):
        run_consumer(decorated, handshake(layer, session_of(ann)), "tests")
    assert User(ann).sockets() == []


def test_only_a_connect_joins_by_decorator(layer: ChannelLayerWrapper, ann: Any) -> None:
    message = handshake(layer, session_of(ann))
    message.channel_name = "websocket.receive"
    run_consumer(channel_session_user_from_http(accept), message, "tests")
    assert User(ann).sockets() == []


def logging_in(user: Any) -> Any:
    def consumer(message: Message) -> None:
        log_in(message, user)
        message.reply_channel.send({"text": "hello"})

    return consumer


@pytest.mark.parametrize("decorator", [channel_session, channel_session_user])
@pytest.mark.parametrize("channel", ["websocket.connect", "websocket.receive", "chat.said"])
def test_log_in_joins(layer: ChannelLayerWrapper, ann: Any, bea: Any, decorator: Any, channel: str) -> None:
    message = handshake(layer)
    message.channel_name = channel
    run_consumer(decorator(logging_in(ann)), message, "tests")
    assert User(ann).sockets() == [message.reply_channel.name]
    again = Message({"reply_channel": message.reply_channel.name}, "websocket.receive", layer)
    run_consumer(decorator(logging_in(bea)), again, "tests")
    assert (User(ann).sockets(), User(bea).sockets()) == ([], [message.reply_channel.name])
    run_consumer(decorator(logging_in(bea)), again, "tests")
    assert len(User(bea).sockets()) == 1


@pytest.mark.parametrize("channel", ["http.request", "websocket.disconnect"])
def test_what_is_no_open_socket_does_not_join(layer: ChannelLayerWrapper, ann: Any, channel: str) -> None:
    reply = layer.new_channel("http.response!" if channel == "http.request" else "websocket.send!")
    run_consumer(channel_session(logging_in(ann)), Message({"reply_channel": reply}, channel, layer), "tests")
    assert User(ann).sockets() == []


def test_nothing_joins_unless_the_setting_says_so(layer: ChannelLayerWrapper, ann: Any) -> None:
    for setting in ({}, {"join": False, "disconnect_on_logout": True}):
        with override_settings(CHANNEL_USERS=setting):
            run_consumer(channel_session_user_from_http(accept), handshake(layer, session_of(ann)), "tests")
            run_consumer(channel_session(logging_in(ann)), handshake(layer), "tests")
        assert User(ann).sockets() == []


# -- closes by signals ---------------------------------------------------------------------------------


@pytest.fixture
def socket(layer: ChannelLayerWrapper, ann: Any, bea: Any) -> str:
    socket: str = layer.new_channel("websocket.send!")
    User(ann).group.add(socket)
    User(bea).group.add("of.bea")
    return socket


def test_a_logout_closes_the_sockets_when_the_session_is_gone(
    layer: ChannelLayerWrapper, ann: Any, bea: Any, socket: str
) -> None:
    request = HttpRequest()
    request.session, request.user = SessionStore(), ann
    login(request, ann, "django.contrib.auth.backends.ModelBackend")
    key = str(request.session.session_key)
    request.session.save()
    assert SessionStore().exists(key)
    at_close: list[bool] = []
    write = layer.channel_layer.dispatch

    def dispatch(sends: Any) -> None:
        at_close.append(SessionStore().exists(key))
        write(sends)

    layer.channel_layer.dispatch = dispatch  # type: ignore[method-assign]
    logout(request)
    assert at_close == [False]
    assert drain(layer, socket, "of.bea") == [{"close": 1012}]
    request.session.flush()
    request.user = AnonymousUser()
    logout(request)
    assert drain(layer, socket, "of.bea") == []


def test_a_logout_of_async_code_closes_the_sockets(layer: ChannelLayerWrapper, ann: Any, socket: str) -> None:
    request = HttpRequest()
    request.session, request.user = SessionStore(), ann
    login(request, ann, "django.contrib.auth.backends.ModelBackend")

    async def auser() -> Any:
        return ann

    request.auser = auser
    async_to_sync(alogout)(request)
    assert drain(layer, socket, "of.bea") == [{"close": 1012}]


def test_a_logout_by_a_view(layer: ChannelLayerWrapper, ann: Any, socket: str) -> None:
    browser = DjangoClient()
    browser.force_login(ann)
    browser.logout()
    assert drain(layer, socket, "of.bea") == [{"close": 1012}]


def change(user: Any, password: str = "another", **kwargs: Any) -> None:
    user.set_password(password)
    user.save(**kwargs)


@pytest.mark.django_db(transaction=True)
def test_a_changed_password_closes_the_sockets_on_commit(
    layer: ChannelLayerWrapper, ann: Any, bea: Any, socket: str
) -> None:
    ann.save()
    ann.first_name = "Ann"
    ann.save(update_fields=["first_name"])
    DjangoUser(username="new").save()
    with transaction.atomic():
        change(ann)
        transaction.set_rollback(True)
    ann.refresh_from_db()
    with transaction.atomic():
        change(ann)
        assert drain(layer, socket, "of.bea") == []
    assert drain(layer, socket, "of.bea") == [{"close": 1012}]
    change(ann, "third", update_fields=["password"])
    assert drain(layer, socket, "of.bea") == [{"close": 1012}]
    ann.set_password("not saved")
    ann.save(update_fields=["first_name"])
    assert drain(layer, socket, "of.bea") == []


@pytest.mark.django_db(transaction=True)
def test_a_failed_consumer_that_has_changed_a_password_closes_the_sockets(
    layer: ChannelLayerWrapper, ann: Any, socket: str
) -> None:
    def consumer(message: Message) -> None:
        change(ann)
        raise LookupError

    with pytest.raises(LookupError):
        run_consumer(consumer, Message({}, "jobs", layer), "tests")
    assert drain(layer, socket) == [{"close": 1012}]


def test_a_layer_that_is_away_does_not_hinder_a_logout(
    layer: ChannelLayerWrapper, ann: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "no.such", "ROUTING": []}}, CHANNEL_USERS=ALL),
        caplog.at_level(logging.ERROR, "channelsq.auth"),
    ):
        browser = DjangoClient()
        browser.force_login(ann)
        browser.logout()
    assert [action_of(record) for record in caplog.records] == ["user_not_disconnected"]


def test_receivers_are_connected_only_if_the_setting_says_so(layer: ChannelLayerWrapper, ann: Any, socket: str) -> None:
    signals = (user_logged_out, pre_save, post_save)
    connected = [len(signal.receivers) for signal in signals]
    with override_settings(CHANNEL_USERS={"join": True}):
        assert [len(signal.receivers) for signal in signals] == [number - 1 for number in connected]
        browser = DjangoClient()
        browser.force_login(ann)
        browser.logout()
        change(ann)
    assert drain(layer, socket, "of.bea") == []
    assert [len(signal.receivers) for signal in signals] == connected


@pytest.mark.parametrize("value", [[], {"joins": True}, {"join": 1}, {"join": None}])
def test_wrong_settings(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="CHANNEL_USERS"), override_settings(CHANNEL_USERS=value):
        pass


# -- live tasks ----------------------------------------------------------------------------------------


def test_a_user_object_is_no_audience_of_a_live_task(layer: ChannelLayerWrapper, ann: Any) -> None:
    from channelsq.tasks import send_to_group

    for thing in (ann, [ann], AnonymousUser()):
        with pytest.raises(TypeError, match=r"write User\(user\)"):
            start(send_to_group.s("room", {}), to=thing)


@pytest.mark.django_db(transaction=True)
def test_a_user_is_an_audience_of_a_live_task(layer: ChannelLayerWrapper, ann: Any) -> None:
    from channelsq.live.tickets import read
    from channelsq.tasks import send_to_group

    socket = layer.new_channel("websocket.send!")
    User(ann).group.add(socket)
    for to, may_cancel in ((User(ann), True), ([User(ann), Group("room")], False)):
        live = start(send_to_group.s("room", {}), to=to, countdown=60)
        assert read(live.ticket).may_cancel is may_cancel
        told = drain(layer, socket)  # and more, if the task runs in place
        assert live.ticket in told[0]["text"]
