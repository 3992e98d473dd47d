"""Housekeeping, configuration and monitoring."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, receive, wait_until


class HousekeepingContract(LayerFixtures):
    """Tests of ``flush``, ``close``, the sizes of groups, async callers and wrong settings."""

    def test_sizes_of_groups(self, layer: BaseChannelLayer) -> None:
        assert layer.group_sizes(10, 1) == ({}, False)
        assert layer.some_members("room", 10) == ([], 0)
        channels = [layer.new_channel("websocket.send!") for _ in range(5)]
        for number in range(5):
            for channel in channels[: number + 1]:
                layer.group_add(f"room-{number}", channel)
        assert layer.group_sizes(5, 5) == ({f"room-{number}": number + 1 for number in range(5)}, False)
        some, cut = layer.group_sizes(2, 5)
        assert cut
        assert len(some) == 2
        members, total = layer.some_members("room-4", 2)
        assert total == 5
        assert len(members) == 2
        assert set(members) < set(channels)
        assert sorted(layer.some_members("room-4", 100)[0]) == sorted(channels)

    def test_flush(self, layer: BaseChannelLayer, unique: Unique) -> None:
        reply = layer.new_channel("reply!")
        layer.send(unique("c"), {})
        layer.send(reply, {})
        layer.group_add("room", unique("c"))
        layer.flush()
        assert layer.receive([unique("c"), reply]) == (None, None)
        assert layer.group_channels("room") == []

    def test_usable_after_close(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.group_add("room", unique("c"))
        layer.send(unique("c"), {"n": 1})
        layer.close()
        assert receive(layer, unique("c"))[1] == {"n": 1}
        assert layer.group_channels("room") == [unique("c")]

    def test_async_callers(self, layer: BaseChannelLayer, unique: Unique) -> None:
        async def use() -> None:
            await layer.asend(unique("c"), {"n": 1})
            await layer.agroup_add("room", unique("c"))
            await layer.asend_group("room", {"n": 2})
            await layer.agroup_discard("room", unique("c"))

        asyncio.run(use())
        # On several servers a message to a group and one to a channel have no order.
        assert sorted(receive(layer, unique("c"))[1]["n"] for _ in range(2)) == [1, 2]
        assert layer.group_channels("room") == []

    @pytest.mark.parametrize(
        ("config", "named"),
        [
            ({"expiry": 0}, "expiry"),
            ({"capacity": "many"}, "'many'"),
            ({"message_size_limit": -1}, "message_size_limit"),
            ({"unrouted": "maybe"}, "'maybe'"),
            ({"group_expiry": True}, "group_expiry"),
        ],
        ids=repr,
    )
    def test_bad_configuration(self, make_layer: MakeLayer, config: Any, named: str) -> None:
        with pytest.raises(InvalidChannelLayerError, match=named):
            make_layer(**config)


class QueueContract(LayerFixtures):
    """Tests of ``depth``, ``channel_state`` and ``purge``, which ``manage.py channels`` needs."""

    def test_depth_is_what_no_worker_has_taken(self, layer: BaseChannelLayer, unique: Unique) -> None:
        channel, other = unique("counted"), unique("other")
        assert layer.depth(channel) == 0
        for n in range(5):
            layer.send(channel, {"n": n})
        layer.send(other, {})
        # A broker that confirms nothing may count a little later.
        wait_until(lambda: layer.depth(channel) == 5, "a depth of 5")
        receive(layer, channel)
        wait_until(lambda: layer.depth(channel) == 4, "a depth of 4")
        assert layer.depth(other) == 1

    def test_the_state_of_a_channel(self, layer: BaseChannelLayer, unique: Unique) -> None:
        channel = unique("jobs")
        assert layer.channel_state(channel)[:3] in ((0, None, None), (0, 0, None))
        layer.send(channel, {"number": 1})
        layer.send(channel, {"number": 2})
        state = wait_until(lambda: state if (state := layer.channel_state(channel)).waiting == 2 else None, "both")
        assert state.oldest is None or 0 <= state.oldest < 10  # AMQP does not tell
        assert not state.held
        assert not state.dead
        again = layer.channel_state(channel)
        assert state.oldest is None or again.oldest is None or again.oldest >= state.oldest
        for _ in range(2):
            receive(layer, channel)
        assert wait_until(lambda: not layer.channel_state(channel).waiting, "none")
        assert layer.channel_state(channel).oldest is None

    def test_purge(self, layer: BaseChannelLayer, unique: Unique) -> None:
        channel, other = unique("jobs"), unique("others")
        assert layer.purge(channel) == 0
        for number in range(3):
            layer.send(channel, {"number": number})
            layer.send(other, {"number": number})
        wait_until(lambda: layer.depth(channel) == 3, "all of them")
        assert layer.purge(channel) == 3
        assert layer.depth(channel) == 0
        assert layer.receive([channel]) == (None, None)
        layer.send(channel, {"number": 4})
        assert wait_until(lambda: layer.depth(channel) == 1, "the next one")
        assert wait_until(lambda: layer.depth(other) == 3, "the others")
