"""``message.channel_session`` and ``message.http_session``, with every engine of Django's that can keep them."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends import file
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ChannelsqError, InvalidSessionEngine
from channelsq.message import Message
from channelsq.options import ATTRIBUTE, consumer
from channelsq.sessions import (
    channel_and_http_session,
    channel_session,
    http_session,
    session_for_reply_channel,
)

pytestmark = pytest.mark.django_db

ENGINES = ["db", "cache", "cached_db", "file"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    # Django's own class notes for good what SESSION_FILE_PATH was at first.
    monkeypatch.setattr(file.SessionStore, "_storage_path", str(tmp_path), raising=False)
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": tmp_path}}
    return str(request.param)


def message(layer: ChannelLayerWrapper, channel: str = "websocket.receive", **content: Any) -> Any:
    content.setdefault("reply_channel", "test-reply")
    return Message({key: value for key, value in content.items() if value is not None}, channel, layer)


def handshake(layer: ChannelLayerWrapper, session: SessionBase | None = None, **content: Any) -> Any:
    cookies = [[b"cookie", f"other=1; sessionid={session.session_key}".encode()]] if session else []
    return message(layer, "websocket.connect", **{"path": "/", "headers": cookies, **content})


def browser_session(**data: Any) -> SessionBase:
    """A session that a view has made."""
    from django.conf import settings

    session: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore()
    session.create()
    session.update(data)
    session.save()
    return session


# -- channel_session


def test_channel_session_lasts_from_message_to_message(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    @channel_session
    def count(message: Any) -> int:
        message.channel_session["seen"] = message.channel_session.get("seen", 0) + 1
        return int(message.channel_session["seen"])

    assert [count(message(channel_layer)) for _ in range(3)] == [1, 2, 3]
    assert count(message(channel_layer, reply_channel="another")) == 1
    assert session_for_reply_channel("test-reply")["seen"] == 3


def test_channel_session_is_on_methods_too(channel_layer: ChannelLayerWrapper) -> None:
    class Consumer:
        @channel_session
        def method(self, message: Any, word: str) -> None:
            message.channel_session["word"] = word

    Consumer().method(message(channel_layer), word="hello")
    assert session_for_reply_channel("test-reply")["word"] == "hello"


def test_channel_session_twice_is_one_session(channel_layer: ChannelLayerWrapper) -> None:
    @channel_session
    @channel_session
    def inner(message: Any) -> None:
        message.channel_session["hat"] = message.channel_session.get("hat", "") + "x"

    inner(message(channel_layer))
    assert session_for_reply_channel("test-reply")["hat"] == "x"


def test_channel_session_is_saved_when_the_consumer_raises(channel_layer: ChannelLayerWrapper) -> None:
    @channel_session
    def fail(message: Any) -> None:
        message.channel_session["tried"] = True
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        fail(message(channel_layer))
    assert session_for_reply_channel("test-reply")["tried"]


def test_channel_session_without_content_is_not_kept(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    @channel_session
    def write(message: Any) -> None:
        message.channel_session["a"] = 1

    @channel_session
    def flush(message: Any) -> None:
        message.channel_session.flush()

    @channel_session
    def empty(message: Any) -> None:
        del message.channel_session["a"]

    key = session_for_reply_channel("test-reply").session_key
    assert key is not None
    for end in (flush, empty):
        write(message(channel_layer))
        assert session_for_reply_channel("test-reply").exists(key)
        end(message(channel_layer))
        assert not session_for_reply_channel("test-reply").exists(key)


def test_channel_session_needs_a_reply_channel(channel_layer: ChannelLayerWrapper) -> None:
    @channel_session
    def inner(message: Any) -> None:
        raise AssertionError("was called")

    with pytest.raises(ValueError, match=r"websocket\.receive.*no reply_channel"):
        inner(message(channel_layer, reply_channel=None))
    with pytest.raises(ValueError, match="@channel_session is for consumers"):
        inner("no message")


def test_channel_session_that_is_not_touched_asks_nothing(
    channel_layer: ChannelLayerWrapper, django_assert_num_queries: Any
) -> None:
    @channel_session
    def inner(message: Any) -> None:
        assert message.channel_session.session_key

    with django_assert_num_queries(0):
        inner(message(channel_layer))
    assert not session_for_reply_channel("test-reply").exists(session_for_reply_channel("test-reply").session_key or "")


def test_channel_session_that_was_emptied_can_be_written_again(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    session = session_for_reply_channel("test-reply")
    session["a"] = 1
    session.save()
    key = session.session_key
    session.flush()
    assert dict(session_for_reply_channel("test-reply").items()) == {}
    session["b"] = 2
    session.save()
    assert session.session_key == key
    assert dict(session_for_reply_channel("test-reply").items()) == {"b": 2}


def test_channel_session_that_was_deleted_meanwhile_is_made_again(
    channel_layer: ChannelLayerWrapper, engine: str
) -> None:
    one, two = session_for_reply_channel("test-reply"), session_for_reply_channel("test-reply")
    one["a"] = 1
    one.save()
    assert two["a"] == 1
    one.delete()
    two["b"] = 2
    two.save()
    assert dict(session_for_reply_channel("test-reply").items()) == {"a": 1, "b": 2}


def test_channel_session_made_by_two_consumers_at_once(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    one, two = session_for_reply_channel("test-reply"), session_for_reply_channel("test-reply")
    one["a"] = 1
    two["b"] = 2
    one.save()
    two.save()
    assert session_for_reply_channel("test-reply").get("b") == 2


def test_channel_session_that_has_expired_is_empty_and_can_be_written(
    channel_layer: ChannelLayerWrapper, engine: str
) -> None:
    session = session_for_reply_channel("test-reply")
    session["a"] = 1
    session.set_expiry(-1)
    session.save()
    again = session_for_reply_channel("test-reply")
    assert "a" not in again
    again["b"] = 2
    again.set_expiry(60)
    again.save()
    assert session_for_reply_channel("test-reply")["b"] == 2


@pytest.mark.django_db(transaction=True)
def test_channel_session_in_asynchronous_code(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    @channel_session
    def consumer(message: Any) -> Any:
        async def count() -> Any:
            await message.channel_session.aset("seen", await message.channel_session.aget("seen", 0) + 1)
            await message.channel_session.acycle_key()
            return await message.channel_session.aget("seen")

        return async_to_sync(count)()

    assert [consumer(message(channel_layer)) for _ in range(2)] == [1, 2]
    session = session_for_reply_channel("test-reply")
    assert session["seen"] == 2
    async_to_sync(session.aflush)()
    session["seen"] = 7
    async_to_sync(session.asave)()
    assert session_for_reply_channel("test-reply")["seen"] == 7


def test_the_key_of_a_channel_session_cannot_be_made_without_the_secret(settings: Any) -> None:
    key = session_for_reply_channel("test-reply").session_key
    settings.SECRET_KEY = "another"
    assert session_for_reply_channel("test-reply").session_key != key


def test_channel_sessions_outlive_a_change_of_the_secret(
    channel_layer: ChannelLayerWrapper, settings: Any, engine: str
) -> None:
    session = session_for_reply_channel("test-reply")
    session["a"] = 1
    session.save()
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new one"
    session = session_for_reply_channel("test-reply")
    assert session["a"] == 1
    session["b"] = 2
    session.save()
    assert dict(session_for_reply_channel("test-reply").items()) == {"a": 1, "b": 2}


def test_cookies_cannot_keep_a_channel_session(channel_layer: ChannelLayerWrapper, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    with pytest.raises(InvalidSessionEngine, match=r"signed_cookies.*CHANNEL_SESSION_ENGINE") as error:
        session_for_reply_channel("test-reply")
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, ChannelsqError)
    settings.CHANNEL_SESSION_ENGINE = "django.contrib.sessions.backends.db"
    session = session_for_reply_channel("test-reply")
    session["a"] = 1
    session.save()
    assert session_for_reply_channel("test-reply")["a"] == 1


def test_decorated_consumers_keep_their_names_and_options() -> None:
    @channel_session
    @consumer(rate_limit="10/s")
    def handle(message: Any) -> None:
        """A docstring of a consumer."""

    assert handle.__name__ == "handle"
    assert handle.__doc__ == "A docstring of a consumer."
    assert getattr(handle, ATTRIBUTE) == {"rate_limit": "10/s"}


# -- http_session


@http_session
def read(message: Any) -> Any:
    return None if message.http_session is None else dict(message.http_session.items())


def test_http_session_is_found_by_its_cookie(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    session = browser_session(species="cat")
    assert read(handshake(channel_layer, session)) == {"species": "cat"}
    request = message(channel_layer, "http.request", path="/", method="POST", body=b"x=1", headers=[])
    assert read(request) is None


def test_http_session_is_found_by_its_key_in_the_url(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    session, other = browser_session(species="cat"), browser_session(species="dog")
    query = f"a=1&session_key={session.session_key}".encode()
    assert read(handshake(channel_layer, query_string=query)) == {"species": "cat"}
    assert read(handshake(channel_layer, other, query_string=query)) == {"species": "cat"}


def test_session_keys_in_urls_can_be_switched_off(channel_layer: ChannelLayerWrapper, settings: Any) -> None:
    session, other = browser_session(species="cat"), browser_session(species="dog")
    settings.CHANNEL_SESSION_KEY_IN_URL = False
    query = f"session_key={session.session_key}".encode()
    assert read(handshake(channel_layer, query_string=query)) is None
    assert read(handshake(channel_layer, other, query_string=query)) == {"species": "dog"}
    settings.CHANNEL_SESSION_KEY_IN_URL = "no"
    with pytest.raises(ImproperlyConfigured, match="CHANNEL_SESSION_KEY_IN_URL must be True or False"):
        read(handshake(channel_layer, query_string=query))


@pytest.mark.parametrize(
    "query",
    [b"session_key=a%00bcdefghi", b"session_key=%ff%fe", b"session_key=%C3%A9", b"%", b"&".join([b"a=1"] * 5000)],
    ids=["nul", "no utf-8", "no ascii", "percent", "many"],
)
def test_what_is_no_key_finds_no_session(channel_layer: ChannelLayerWrapper, engine: str, query: bytes) -> None:
    """A client's nonsense is no failure of the consumer; nor does it reach the store, which might choke on it."""
    assert read(handshake(channel_layer, query_string=query)) is None
    session = browser_session(species="cat")
    if b"session_key" not in query:
        assert read(handshake(channel_layer, session, query_string=query)) == {"species": "cat"}
    assert read(handshake(channel_layer, headers=[[b"cookie", b'sessionid="a\\000bcdefghi"']])) is None


def test_http_session_is_saved_if_it_was_changed(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    @http_session
    def change(message: Any, fail: bool = False) -> None:
        message.http_session["seen"] = not fail
        if fail:
            raise KeyError

    session = browser_session(species="cat")
    change(handshake(channel_layer, session))
    assert read(handshake(channel_layer, session)) == {"species": "cat", "seen": True}
    with pytest.raises(KeyError):
        change(handshake(channel_layer, session), fail=True)
    assert read(handshake(channel_layer, session))["seen"]


def test_http_session_that_was_deleted_meanwhile_stays_deleted(
    channel_layer: ChannelLayerWrapper, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    @http_session
    def change(message: Any) -> None:
        assert message.http_session["species"] == "cat"
        session.delete()  # as a logout at this moment does
        message.http_session["species"] = "dog"

    session = browser_session(species="cat")
    with caplog.at_level(logging.WARNING, "channelsq.sessions"):
        change(handshake(channel_layer, session))
    assert [getattr(record, "action", "") for record in caplog.records] == ["session_gone"]
    assert not session.exists(session.session_key or "")


def test_http_session_leaves_the_message_and_its_body_alone(channel_layer: ChannelLayerWrapper) -> None:
    body = message(
        channel_layer, "http.request", path="/", method="PUT", body=b"x", body_channel="http.request.body?none"
    )
    before = dict(body.content)
    assert read(body) is None
    assert body.content == before


def test_http_session_of_what_is_no_request(channel_layer: ChannelLayerWrapper) -> None:
    with pytest.raises(ValueError, match="cannot be read as a request"):
        read(message(channel_layer, path=None))


def test_a_session_in_a_cookie_can_be_read_but_not_changed(channel_layer: ChannelLayerWrapper, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    session = browser_session(species="cat")
    assert read(handshake(channel_layer, session)) == {"species": "cat"}

    @http_session
    def change(message: Any) -> None:
        message.http_session["species"] = "dog"

    with pytest.raises(InvalidSessionEngine, match=r"signed_cookies.*in a view"):
        change(handshake(channel_layer, session))


# -- both


def test_channel_and_http_session_is_there_on_later_messages(channel_layer: ChannelLayerWrapper, engine: str) -> None:
    @channel_and_http_session
    def handle(message: Any) -> Any:
        message.channel_session["n"] = message.channel_session.get("n", 0) + 1
        return message.http_session and dict(message.http_session.items())

    session = browser_session(species="cat")
    assert handle(handshake(channel_layer, session)) == {"species": "cat"}
    assert handle(message(channel_layer, path="/")) == {"species": "cat"}
    assert session_for_reply_channel("test-reply")["n"] == 2


def test_channel_and_http_session_without_a_session(channel_layer: ChannelLayerWrapper) -> None:
    @channel_and_http_session
    def handle(message: Any) -> Any:
        return message.http_session

    assert handle(handshake(channel_layer)) is None
    assert handle(message(channel_layer, path="/")) is None
