"""``message.user`` is who ``request.user`` is."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client as DjangoClient

from channelsq.asgi import ChannelLayerWrapper
from channelsq.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
    log_in,
    transfer_user,
)
from channelsq.sessions import session_for_reply_channel
from tests.unit.test_sessions import engine as engine
from tests.unit.test_sessions import handshake, message

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Any:
    return get_user_model().objects.create_user("alice", password="secret")


@pytest.fixture
def her_session(alice: Any) -> SessionBase:
    browser = DjangoClient()
    browser.force_login(alice)
    return browser.session


def user(message: Any) -> Any:
    return message.user


def is_known(message: Any) -> bool:
    return bool(message.user.is_authenticated)


def test_http_session_user_is_the_browsers(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    found = http_session_user(user)(handshake(channel_layer, her_session))
    assert found == alice
    assert isinstance(found, type(alice))
    assert http_session_user(user)(handshake(channel_layer, query_string=f"session_key={her_session.session_key}")) == (
        alice
    )


def test_http_session_user_is_anonymous_without_a_session(channel_layer: ChannelLayerWrapper) -> None:
    assert isinstance(http_session_user(user)(handshake(channel_layer)), AnonymousUser)
    assert not http_session_user(user)(handshake(channel_layer, SessionStore("unknownsession"))).is_authenticated


def test_channel_session_user_is_who_the_connect_consumer_put_there(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated
    assert channel_session_user_from_http(user)(handshake(channel_layer, her_session)) == alice
    assert channel_session_user(user)(message(channel_layer)) == alice
    assert not channel_session_user(user)(message(channel_layer, reply_channel="another")).is_authenticated


def test_channel_session_user_from_http_of_nobody(channel_layer: ChannelLayerWrapper) -> None:
    assert not channel_session_user_from_http(user)(handshake(channel_layer)).is_authenticated
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated


def test_channel_and_http_session_user_from_http(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    @channel_and_http_session_user_from_http
    def both(message: Any) -> Any:
        return message.user, message.http_session and message.http_session.session_key

    assert both(handshake(channel_layer, her_session)) == (alice, her_session.session_key)
    assert both(message(channel_layer, path="/")) == (alice, her_session.session_key)


def test_the_decorators_are_for_methods_too(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    class Consumer:
        @channel_session_user_from_http
        def connect(self, message: Any, room: str) -> Any:
            return message.user, room

        @channel_session_user
        def receive(self, message: Any) -> Any:
            return message.user

    assert Consumer().connect(handshake(channel_layer, her_session), room="tea") == (alice, "tea")
    assert Consumer().receive(message(channel_layer)) == alice


def test_transfer_user_takes_what_says_who_it_is(alice: Any, her_session: SessionBase) -> None:
    target: dict[str, Any] = {"kept": 1}
    transfer_user(her_session, target)
    assert target == {
        "kept": 1,
        SESSION_KEY: str(alice.pk),
        BACKEND_SESSION_KEY: her_session[BACKEND_SESSION_KEY],
        HASH_SESSION_KEY: her_session[HASH_SESSION_KEY],
    }
    nobody: dict[str, Any] = {}
    transfer_user({"species": "cat"}, nobody)
    assert nobody == {}


def test_a_user_who_changed_the_password_is_out_as_in_views(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    channel_session_user_from_http(user)(handshake(channel_layer, her_session))
    alice.set_password("another")
    alice.save()
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated
    assert not http_session_user(user)(handshake(channel_layer, her_session)).is_authenticated


def test_a_user_whom_the_application_has_authenticated(channel_layer: ChannelLayerWrapper, alice: Any) -> None:
    @channel_session_user
    def connect(message: Any) -> Any:
        assert not message.user.is_authenticated
        log_in(message, get_user_model().objects.get(username="alice"))
        return message.user

    assert connect(message(channel_layer)) == alice
    assert channel_session_user(user)(message(channel_layer)) == alice
    assert not channel_session_user(user)(message(channel_layer, reply_channel="another")).is_authenticated
    alice.set_password("another")
    alice.save()
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated


def test_what_log_in_refuses(channel_layer: ChannelLayerWrapper, alice: Any, settings: Any) -> None:
    with pytest.raises(ValueError, match=r"log_in\(\): .* no channel session; decorate it with @channel_session_user"):
        log_in(message(channel_layer), alice)
    logs_in = channel_session_user(log_in)
    for nobody in (AnonymousUser(), None):
        with pytest.raises(ValueError, match=r"log_in\(\): .* cannot be logged in"):
            logs_in(message(channel_layer), nobody)
    first, second = (f"django.contrib.auth.backends.{name}Backend" for name in ("Model", "AllowAllUsersModel"))
    settings.AUTHENTICATION_BACKENDS = [first, second]
    with pytest.raises(ValueError, match=r"log_in\(\): None is none of AUTHENTICATION_BACKENDS; say with backend="):
        logs_in(message(channel_layer), alice)
    assert not channel_session_user(is_known)(message(channel_layer))
    logs_in(message(channel_layer), alice, backend=second)
    alice.is_active = False
    alice.save()
    assert channel_session_user(user)(message(channel_layer)) == alice  # this backend lets them in


def test_a_user_who_was_deleted_is_nobody(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    channel_session_user_from_http(user)(handshake(channel_layer, her_session))
    alice.delete()
    assert not channel_session_user(user)(message(channel_layer)).is_authenticated


def test_several_backends_each_decide_about_their_users(
    channel_layer: ChannelLayerWrapper, alice: Any, settings: Any
) -> None:
    second = "django.contrib.auth.backends.AllowAllUsersModelBackend"
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", second]
    browser = DjangoClient()
    browser.force_login(alice, backend=second)
    alice.is_active = False
    alice.save()
    assert http_session_user(user)(handshake(channel_layer, browser.session)) == alice  # this one lets them in
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert not http_session_user(user)(handshake(channel_layer, browser.session)).is_authenticated


def test_a_session_that_an_old_secret_has_signed_keeps_its_key(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase, settings: Any
) -> None:
    """Django's middleware gives it a new one and tells the browser, which a consumer cannot."""
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new one"
    # The session's own data were signed with the old secret as well.
    assert http_session_user(user)(handshake(channel_layer, her_session)) == alice
    assert her_session.exists(her_session.session_key or "")
    assert http_session_user(user)(handshake(channel_layer, her_session)) == alice


def test_a_user_that_is_not_looked_at_is_not_looked_up(
    channel_layer: ChannelLayerWrapper, her_session: SessionBase, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        http_session_user(lambda message: None)(handshake(channel_layer, her_session))
        channel_session_user(lambda message: None)(message(channel_layer))


def test_the_channel_sessions_user_is_kept_in_the_channel_session(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase
) -> None:
    channel_session_user_from_http(user)(handshake(channel_layer, her_session))
    assert session_for_reply_channel("test-reply")[SESSION_KEY] == str(alice.pk)


def cookie_of(browser: DjangoClient) -> dict[str, Any]:
    return {"headers": [[b"cookie", f"sessionid={browser.cookies['sessionid'].value}".encode()]]}


def test_a_user_in_a_cookie_who_changed_the_password_is_nobody(
    channel_layer: ChannelLayerWrapper, alice: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    browser = DjangoClient()
    browser.force_login(alice)
    assert http_session_user(is_known)(handshake(channel_layer, **cookie_of(browser)))
    alice.set_password("another")
    alice.save()
    assert not http_session_user(is_known)(handshake(channel_layer, **cookie_of(browser)))


def test_a_user_in_a_cookie_that_an_old_secret_has_signed(
    channel_layer: ChannelLayerWrapper, alice: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    browser = DjangoClient()
    browser.force_login(alice)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new one"
    assert http_session_user(is_known)(handshake(channel_layer, **cookie_of(browser)))


def test_a_user_in_a_cookie_is_taken_over_into_a_channel_session_of_another_engine(
    channel_layer: ChannelLayerWrapper, alice: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.CHANNEL_SESSION_ENGINE = "django.contrib.sessions.backends.db"
    browser = DjangoClient()
    browser.force_login(alice)
    assert channel_session_user_from_http(user)(handshake(channel_layer, **cookie_of(browser))) == alice
    assert channel_session_user(user)(message(channel_layer)) == alice


def test_a_session_that_ends_with_its_password_is_no_lost_change(
    channel_layer: ChannelLayerWrapper, alice: Any, her_session: SessionBase, caplog: pytest.LogCaptureFixture
) -> None:
    alice.set_password("another")
    alice.save()
    assert not http_session_user(is_known)(handshake(channel_layer, her_session))
    assert not her_session.exists(her_session.session_key or "")
    assert not caplog.records


@pytest.mark.usefixtures("engine")
def test_a_logout_between_two_messages_makes_nobody_of_the_user_and_raises_nothing(
    channel_layer: ChannelLayerWrapper, alice: Any
) -> None:
    browser = DjangoClient()
    browser.force_login(alice)

    @channel_and_http_session_user_from_http
    def who(message: Any) -> Any:
        return message.user

    assert who(handshake(channel_layer, **cookie_of(browser))) == alice
    assert who(message(channel_layer, path="/")) == alice
    browser.logout()
    for _ in range(2):
        assert isinstance(who(message(channel_layer, path="/")), AnonymousUser)
    # What only looks at the socket's own session knows nothing of it.
    assert channel_session_user(user)(message(channel_layer)) == alice
