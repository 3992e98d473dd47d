from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from channelsq import DEFAULT_CHANNEL_LAYER, Channel, Group
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ChannelFull, InvalidChannelLayerError, MessageTooLarge
from tests.support.layers import drain, installed, wrapped


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(capacity=3, message_size_limit=1000)
    with installed(layer):
        yield layer


def test_a_channel_of_the_default_layer(layer: ChannelLayerWrapper) -> None:
    channel = Channel("some-channel")
    assert channel.name == str(channel) == "some-channel"
    assert repr(channel) == "Channel('some-channel')"
    assert channel.channel_layer is layer
    assert Channel("x", alias=None).channel_layer is layer
    assert Channel("x", "default").channel_layer is layer
    for kind in (Channel, Group):
        assert inspect.signature(kind).parameters["alias"].default == DEFAULT_CHANNEL_LAYER
    channel.send({"n": 1})
    channel.send({"n": 2}, immediately=True)
    assert drain(layer, "some-channel") == [{"n": 1}, {"n": 2}]


def test_another_layer_by_alias_or_as_itself(layer: ChannelLayerWrapper) -> None:
    other = wrapped(alias="other")
    assert Channel("x", channel_layer=other).channel_layer is other
    assert Group("x", channel_layer=other).channel_layer is other
    assert Channel("x", "nothing", other).channel_layer is other
    for kind in (Channel, Group):
        with pytest.raises(InvalidChannelLayerError, match="'nowhere'"):
            kind("x", alias="nowhere")


def test_a_group(layer: ChannelLayerWrapper) -> None:
    group = Group("room")
    assert group.name == str(group) == "room"
    assert repr(group) == "Group('room')"
    group.add("a")
    group.add(Channel("b"))
    group.add("gone")
    group.discard(Channel("gone"))
    group.discard("never")
    assert sorted(layer.group_channels("room")) == ["a", "b"]
    group.send({"n": 1})
    assert drain(layer, "a") == drain(layer, "b") == [{"n": 1}]
    assert drain(layer, "gone") == []


@pytest.mark.parametrize("name", ["a b", "", None, 5, b"bytes", "x" * 100, "a!"], ids=repr)
def test_misuse_is_the_same_error_in_both(layer: ChannelLayerWrapper, name: Any) -> None:
    for kind in (Channel, Group):
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            kind(name)
    for method in (Group("room").add, Group("room").discard):
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            method(name)
    with pytest.raises(TypeError, match="Channel"):
        Channel(Channel("a"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", ["text", None, ["a"], {1: 2}, {"k": object()}], ids=["str", "None", "list", "key", "value"]
)
def test_bad_content_is_refused_before_anything_is_sent(layer: ChannelLayerWrapper, content: Any) -> None:
    Group("room").add("a")
    for target in (Channel("a"), Group("room")):
        with pytest.raises(TypeError, match="message"):
            target.send(content)
    assert drain(layer, "a") == []


def test_errors_of_the_layer_come_through(layer: ChannelLayerWrapper) -> None:
    channel = Channel("a")
    with pytest.raises(MessageTooLarge, match="1000"):
        channel.send({"big": "x" * 1000})
    with pytest.raises(MessageTooLarge, match="1000"):
        Group("room").send({"big": "x" * 1000})
    for number in range(3):
        channel.send({"n": number})
    with pytest.raises(ChannelFull, match=r"'a'.*3 messages"):
        channel.send({"n": 3})


def test_a_group_never_raises_channel_full(layer: ChannelLayerWrapper) -> None:
    Group("room").add("a")
    for number in range(5):
        Group("room").send({"n": number})
    assert drain(layer, "a") == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert layer.dropped == 2


def test_prepared_sends_are_not_changed_by_what_comes_later(layer: ChannelLayerWrapper) -> None:
    content = {"list": [1]}
    sends = [Channel("a").prepare(content), Group("room").prepare(content)]
    content["list"].append(2)
    Group("room").add("a")
    layer.dispatch(sends)
    assert drain(layer, "a") == [{"list": [1]}, {"list": [1]}]


def test_a_delay_is_kept_and_checked(layer: ChannelLayerWrapper) -> None:
    assert Channel("a").prepare({}, delay=1.5).delay == 1.5
    for delay in (-1, "soon", True, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="delay must be seconds") as raised:
            Channel("a").send({}, delay=delay)  # type: ignore[arg-type]
        assert repr(delay) in str(raised.value)
    with pytest.raises(ValueError, match=r"not for 'a\?b'"):
        Channel("a?b").prepare({}, delay=1)
    Channel("a").send({}, delay=60)
    assert drain(layer, "a") == []
