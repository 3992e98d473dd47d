from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from channelsq import exceptions
from channelsq.exceptions import (
    BadFrame,
    BrokerUnavailable,
    ChannelFull,
    ChannelLayerError,
    ChannelNotLocal,
    ChannelSocketException,
    ChannelsqError,
    ConsumeLater,
    DenyConnection,
    InvalidChannelLayerError,
    InvalidRouting,
    InvalidSessionEngine,
    MessageTooLarge,
    RequestAborted,
    RequestIncomplete,
    RequestTimeout,
    ResponseLater,
    SendNotAvailableOnDemultiplexer,
    WebsocketCloseException,
)
from channelsq.layers import BaseChannelLayer
from tests.support.layers import message_on, replies, wrapped

ALL = [
    thing
    for thing in vars(exceptions).values()
    if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__ == exceptions.__name__
]


def test_one_base() -> None:
    assert len(ALL) == 22
    assert all(issubclass(kind, ChannelsqError) for kind in ALL)
    assert not any(issubclass(kind, TypeError) for kind in ALL)


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (InvalidChannelLayerError, (ImproperlyConfigured, ValueError)),
        (InvalidRouting, (ImproperlyConfigured, ValueError)),
        (InvalidSessionEngine, (ImproperlyConfigured, ValueError)),
        (ChannelFull, (ChannelLayerError,)),
        (MessageTooLarge, (ChannelLayerError, ValueError)),
        (ChannelNotLocal, (ChannelLayerError, ValueError)),
        (BrokerUnavailable, (ChannelLayerError, ConnectionError)),
        (WebsocketCloseException, (ChannelSocketException,)),
        (BadFrame, (ChannelSocketException, ValueError)),
    ],
)
def test_the_tree(kind: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    assert all(issubclass(kind, base) for base in bases)


def test_deny_connection_is_no_socket_exception() -> None:
    # Test clients that act upon the one hand on the other, so that a test can expect it.
    assert not issubclass(DenyConnection, ChannelSocketException)


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    drawing = str(exceptions.__doc__)
    assert all(f" {kind.__name__}" in drawing for kind in ALL)


def test_layers_carry_theirs() -> None:
    assert BaseChannelLayer.ChannelFull is ChannelFull
    assert BaseChannelLayer.MessageTooLarge is MessageTooLarge


INSTANCES = [
    ChannelFull("some.channel", 100),
    ChannelFull("some.channel"),
    MessageTooLarge(5, 3),
    ChannelNotLocal("a!b"),
    BrokerUnavailable("redis://example", OSError("refused")),
    BrokerUnavailable("redis://example", "refused", "start it again", group="room"),
    WebsocketCloseException(3000),
    WebsocketCloseException(),
    DenyConnection(),
    ConsumeLater("reason"),
    ResponseLater(),
    RequestTimeout("reason"),
    RequestAborted("reason"),
    RequestIncomplete("reason"),
    SendNotAvailableOnDemultiplexer("reason"),
    InvalidRouting("reason"),
    InvalidSessionEngine("reason"),
    InvalidChannelLayerError("reason"),
]


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_errors_travel(error: Any, again: Any) -> None:
    # From a pool process to the worker, and into result backends.
    same = again(error)
    assert type(same) is type(error)
    assert str(same) == str(error)
    assert {key: str(value) for key, value in vars(same).items()} == {
        key: str(value) for key, value in vars(error).items()
    }


def test_what_the_errors_say() -> None:
    full = ChannelFull("some.channel", 100)
    assert (full.channel, full.capacity) == ("some.channel", 100)
    assert str(full) == "channel 'some.channel' is at its capacity (100 messages); the message was not sent"
    large = MessageTooLarge(5, 3)
    assert (large.size, large.limit) == (5, 3)
    assert "5 bytes" in str(large)
    assert "message_size_limit of 3" in str(large)
    assert "raise message_size_limit" in str(large)
    away = BrokerUnavailable("redis://example", "refused")
    assert away.url == "redis://example"
    assert "no connection to redis://example: refused; start it" in str(away)
    assert "new_channel()" in str(ChannelNotLocal("a!b"))


# -- exceptions that act on a socket --------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 3000, 3999, 4000, 4999])
def test_close_codes(code: int) -> None:
    layer = wrapped()
    for channel in ("websocket.connect", "websocket.receive", "websocket.disconnect"):
        message = message_on(layer, channel)
        WebsocketCloseException(code).run(message)
        assert replies(layer, message) == [{"close": code}]


def test_a_reason_goes_with_the_code() -> None:
    layer = wrapped()
    message = message_on(layer)
    WebsocketCloseException(4001, "why").run(message)
    assert replies(layer, message) == [{"close": 4001, "reason": "why"}]


def test_a_frame_that_means_nothing_leaves_its_socket_open_and_is_logged_once_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions._ignored_frames.reset()
    monkeypatch.setattr(exceptions, "_ignored", 0)
    layer = wrapped()
    message = message_on(layer)
    for _ in range(3):
        BadFrame("for nobody", None).run(message)
    assert replies(layer, message) == []
    (record,) = caplog.records
    assert "a frame on websocket.receive was ignored: for nobody (1 ignored by this process so far)" in record.message
    exceptions._ignored_frames.reset()
    BadFrame("for nobody", None).run(message)
    assert "(4 ignored by this process so far)" in caplog.records[-1].message


def test_no_close_code_is_a_plain_close() -> None:
    layer = wrapped()
    message = message_on(layer)
    WebsocketCloseException().run(message)
    WebsocketCloseException(None).run(message)
    assert replies(layer, message) == [{"close": True}] * 2
    assert WebsocketCloseException().code is None


@pytest.mark.parametrize(
    "code",
    [0, -1, 999, 1001, 1005, 1006, 1011, 1015, 2999, 5000, 65536, True, False, "1000", 1000.0, []],
    ids=repr,
)
def test_codes_that_an_application_may_not_send(code: Any) -> None:
    with pytest.raises(ValueError, match="use 1000 or 3000-4999") as raised:
        WebsocketCloseException(code)
    assert repr(code) in str(raised.value)


def test_deny() -> None:
    layer = wrapped()
    message = message_on(layer, "websocket.connect")
    DenyConnection().run(message)
    assert replies(layer, message) == [{"close": True}]


@pytest.mark.parametrize("channel", ["websocket.receive", "websocket.disconnect", "http.request", "jobs"])
def test_deny_on_another_channel_than_connect(channel: str) -> None:
    layer = wrapped()
    message = message_on(layer, channel)
    with pytest.raises(ValueError, match=f"DenyConnection was raised on '{channel}'; it can only be raised from"):
        DenyConnection().run(message)
    assert replies(layer, message) == []


@pytest.mark.parametrize("channel", ["http.request", "jobs"])
def test_close_without_a_websocket(channel: str) -> None:
    layer = wrapped()
    message = message_on(layer, channel, reply_channel=layer.new_channel("http.response!"))
    with pytest.raises(ValueError, match=f"WebsocketCloseException was raised on '{channel}'.*http.response.*can only"):
        WebsocketCloseException().run(message)
    assert replies(layer, message) == []


@pytest.mark.parametrize("error", [DenyConnection(), WebsocketCloseException(4000)], ids=["deny", "close"])
def test_nobody_to_act_upon(error: Any) -> None:
    with pytest.raises(ValueError, match=rf"{type(error).__name__} was raised on 'websocket\.connect'"):
        error.run(message_on(wrapped(), "websocket.connect", reply_channel=None))


def test_close_from_another_channel_that_serves_a_websocket() -> None:
    layer = wrapped()
    message = message_on(layer, "chat.receive")
    WebsocketCloseException(4000).run(message)
    assert replies(layer, message) == [{"close": 4000}]


def test_close_of_a_test_client_with_a_reply_channel_of_any_name() -> None:
    layer = wrapped()
    message = message_on(layer, "websocket.receive", reply_channel="defaultabcde")
    WebsocketCloseException().run(message)
    assert replies(layer, message) == [{"close": True}]


def test_the_base_is_for_subclasses() -> None:
    with pytest.raises(NotImplementedError):
        ChannelSocketException().run(message_on(wrapped()))
