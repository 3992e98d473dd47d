"""Capacity and expiry."""

from __future__ import annotations

import re
import threading

import pytest

from channelsq.exceptions import ChannelFull
from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, receive, wait_until


class BoundsContract(LayerFixtures):
    """Tests of capacity and expiry."""

    def test_capacity(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(capacity=3)
        for number in range(3):
            layer.send(unique("c"), {"n": number})
        with pytest.raises(ChannelFull, match=re.escape(unique("c"))) as raised:
            layer.send(unique("c"), {"n": 3})
        assert isinstance(raised.value, layer.ChannelFull)
        assert [receive(layer, unique("c"))[1]["n"] for _ in range(3)] == [0, 1, 2]
        layer.send(unique("c"), {"n": 4})
        assert receive(layer, unique("c"))[1]["n"] == 4

    def test_the_default_capacity_is_a_hundred(self, layer: BaseChannelLayer, unique: Unique) -> None:
        for number in range(100):
            layer.send(unique("c"), {"n": number})
        with pytest.raises(ChannelFull, match="100"):
            layer.send(unique("c"), {"n": 100})

    def test_channel_capacity_by_pattern(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(capacity=5, channel_capacity={"*.small": 1, re.compile(r".*\.big$"): 7})
        assert [layer.capacity_of(unique(name)) for name in ("small", "big", "other")] == [1, 7, 5]
        layer.send(unique("small"), {})
        with pytest.raises(ChannelFull):
            layer.send(unique("small"), {})

    def test_one_full_channel_does_not_keep_the_others_from_theirs(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(capacity=1)
        layer.send(unique("full"), {})
        with pytest.raises(ChannelFull, match=re.escape(unique("full"))):
            layer.dispatch([layer.prepare(unique("full"), {}), layer.prepare(unique("free"), {"n": 1})])
        assert receive(layer, unique("free"))[1] == {"n": 1}

    def test_messages_expire(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(expiry=0.2)
        reply, body = layer.new_channel("reply!"), layer.new_channel("body?")
        for channel in (unique("c"), reply, body):
            layer.send(channel, {"n": 1})
        threading.Event().wait(0.3)  # the time itself is what is tested
        for channel in (unique("c"), reply, body):
            assert layer.receive([channel]) == (None, None)

    def test_expired_messages_make_room(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(expiry=1, capacity=2)  # in which the last one is received, also on a busy machine
        layer.send(unique("c"), {"n": 1})
        layer.send(unique("c"), {"n": 2})

        def send() -> bool:
            try:
                layer.send(unique("c"), {"n": 3})
            except ChannelFull:
                return False
            return True

        wait_until(send, "room for a message", timeout=5, interval=0.1)
        assert receive(layer, unique("c"))[1]["n"] == 3
