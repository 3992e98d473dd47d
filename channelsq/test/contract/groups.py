"""Groups."""

from __future__ import annotations

import logging
import time

import pytest

from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, receive, wait_until


class GroupContract(LayerFixtures):
    """Tests of groups."""

    def test_extensions(self, layer: BaseChannelLayer) -> None:
        assert {"groups", "flush"} <= set(layer.extensions)
        assert layer.group_expiry == 86_400
        assert layer.expiry == 60
        assert layer.capacity == 100
        assert layer.channel_capacity == {}

    def test_group_send_reaches_members_of_every_kind(self, layer: BaseChannelLayer, unique: Unique) -> None:
        members = [layer.new_channel("reply!"), layer.new_channel("body?"), unique("work")]
        outsider = unique("other")
        for member in members:
            layer.group_add("room", member)
            layer.group_add("room", member)
        assert sorted(layer.group_channels("room")) == sorted(members)
        layer.send_group("room", {"text": "hello"})
        for member in members:
            assert receive(layer, member) == (member, {"text": "hello"})
            assert layer.receive([member]) == (None, None)
        assert layer.receive([outsider]) == (None, None)

    def test_discard(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.group_add("room", unique("a"))
        layer.group_add("room", unique("b"))
        layer.group_discard("room", unique("a"))
        layer.group_discard("room", unique("never"))
        layer.send_group("room", {"n": 1})
        assert receive(layer, unique("b"))[1] == {"n": 1}
        assert layer.receive([unique("a")]) == (None, None)
        assert layer.group_channels("room") == [unique("b")]

    def test_send_to_an_empty_group(self, layer: BaseChannelLayer) -> None:
        layer.send_group("nobody", {"text": "hello"})
        assert layer.group_channels("nobody") == []

    def test_groups_do_not_mix(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.group_add("one", unique("a"))
        layer.group_add("two", unique("b"))
        layer.send_group("one", {"n": 1})
        assert receive(layer, unique("a"))[1] == {"n": 1}
        assert layer.receive([unique("b")]) == (None, None)

    def test_forget_channel_ends_every_membership(self, layer: BaseChannelLayer, unique: Unique) -> None:
        for group in ("one", "two", "three"):
            layer.group_add(group, unique("gone"))
            layer.group_add(group, unique("stays"))
        layer.forget_channel(unique("gone"))
        assert [layer.group_channels(group) for group in ("one", "two", "three")] == [[unique("stays")]] * 3
        layer.forget_channel(unique("never"))

    def test_membership_expires(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(group_expiry=0.6)
        started = time.monotonic()
        layer.group_add("room", unique("old"))
        layer.group_add("room", unique("renewed"))
        wait_until(lambda: time.monotonic() - started > 0.4, "most of the expiry to pass")
        layer.group_add("room", unique("renewed"))
        wait_until(lambda: layer.group_channels("room") == [unique("renewed")], "the old member to go", timeout=2)
        wait_until(lambda: layer.group_channels("room") == [], "the renewed member to go", timeout=3)

    def test_a_full_member_is_skipped_counted_and_logged(
        self, make_layer: MakeLayer, unique: Unique, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = make_layer(capacity=1)
        layer.group_add("room", unique("full"))
        layer.group_add("room", unique("free"))
        for part in layer.parts:  # each server counts by itself
            part.send(unique("full"), {"n": 0})
        with caplog.at_level(logging.WARNING, "channelsq"):
            layer.send_group("room", {"n": 1})
        assert layer.dropped == 1
        assert unique("full") in caplog.text
        assert receive(layer, unique("free"))[1] == {"n": 1}
        assert receive(layer, unique("full"))[1] == {"n": 0}
