"""Names and values that a layer refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from channelsq.exceptions import MessageTooLarge
from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, receive

#: Values that are no names of channels.
BAD_NAMES = ["", "a b", "a/b", "é", "a!b!c", "a?b!c", "x" * 100, "!a", "?a", "a?", "a\n", 5, None, b"bytes", ["a"]]


class NameContract(LayerFixtures):
    """Tests of names, and of values and sizes of messages."""

    @pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
    def test_bad_channel_names(self, layer: BaseChannelLayer, name: Any) -> None:
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            layer.send(name, {})
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            layer.receive([name])
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            layer.group_add("room", name)
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            layer.group_discard("room", name)

    @pytest.mark.parametrize("name", [*BAD_NAMES, "a!b", "a?b"], ids=repr)
    def test_bad_group_names(self, layer: BaseChannelLayer, name: Any) -> None:
        for call in (
            lambda: layer.group_add(name, "channel"),
            lambda: layer.group_discard(name, "channel"),
            lambda: layer.group_channels(name),
            lambda: layer.send_group(name, {}),
        ):
            with pytest.raises(TypeError, match=re.escape(repr(name))):
                call()

    def test_a_prefix_is_not_something_to_send_to(self, layer: BaseChannelLayer) -> None:
        with pytest.raises(TypeError, match=r"'reply\.x!'"):
            layer.send("reply.x!", {})

    @pytest.mark.parametrize(
        ("message", "named"),
        [
            ("text", "str"),
            (None, "NoneType"),
            ({1: "x"}, "1"),
            ({"key": object()}, "'key'"),
            ({"key": {2: "x"}}, "2"),
            ({"a": {"b": [1, {1, 2}]}}, "['b'][1]"),
            ({"big": 2**63}, "'big'"),
            ({"small": -(2**63) - 1}, "'small'"),
            ({"key": bytearray(b"x")}, "'key'"),
            ({"key": "\ud800"}, "UTF-8"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_messages_that_cannot_be_sent(
        self, layer: BaseChannelLayer, unique: Unique, message: Any, named: str
    ) -> None:
        with pytest.raises(TypeError, match=re.escape(named)):
            layer.send(unique("c"), message)
        with pytest.raises(TypeError, match=re.escape(named)):
            layer.send_group("room", message)
        assert layer.receive([unique("c")]) == (None, None)

    def test_a_message_that_holds_itself(self, layer: BaseChannelLayer, unique: Unique) -> None:
        message: dict[str, Any] = {}
        message["self"] = message
        with pytest.raises(TypeError, match="nested"):
            layer.send(unique("c"), message)

    def test_message_size_limit(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(message_size_limit=1000)
        with pytest.raises(MessageTooLarge, match="1000") as raised:
            layer.send(unique("c"), {"bytes": b"x" * 1000})
        assert raised.value.limit == 1000
        assert raised.value.size > 1000
        assert isinstance(raised.value, layer.MessageTooLarge)
        layer.send(unique("c"), {"bytes": b"x" * 900})
        assert len(receive(layer, unique("c"))[1]["bytes"]) == 900

    def test_a_message_of_the_default_limit_travels(self, layer: BaseChannelLayer, unique: Unique) -> None:
        body = bytes(range(256)) * 4000
        layer.send(unique("c"), {"bytes": body})
        assert receive(layer, unique("c"))[1]["bytes"] == body
