"""The extension "statistics"."""

from __future__ import annotations

import pytest

from channelsq.exceptions import ChannelFull
from channelsq.layers import BaseChannelLayer
from channelsq.layers.contract import statistics
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, receive, wait_until


class StatisticsContract(LayerFixtures):
    """Tests of ``statistics`` and ``channel_statistics``."""

    def test_the_extension_is_there(self, layer: BaseChannelLayer) -> None:
        assert "statistics" in layer.extensions

    def test_an_unused_layer(self, layer: BaseChannelLayer) -> None:
        found = layer.statistics()
        assert found == layer.global_statistics()
        assert set(found) <= statistics.KEYS
        assert not any(found.values())

    def test_the_statistics_of_a_channel(self, layer: BaseChannelLayer, unique: Unique) -> None:
        jobs, others = unique("jobs"), unique("others")
        assert layer.channel_statistics(jobs)["messages_count"] == 0
        for number in range(3):
            layer.send(jobs, {"n": number})
        layer.send(others, {})
        wait_until(lambda: layer.channel_statistics(jobs).get("messages_pending") == 3, "all of them")
        found = layer.channel_statistics(jobs)
        assert set(found) <= statistics.KEYS
        assert found["messages_count"] == 3
        assert found["channel_full_count"] == 0
        assert 0 <= found.get("messages_max_age", 0) < 30
        receive(layer, jobs)
        wait_until(lambda: layer.channel_statistics(jobs)["messages_pending"] == 2, "one less")
        assert layer.channel_statistics(jobs)["messages_count"] == 3
        receive(layer, jobs)
        receive(layer, jobs)
        wait_until(lambda: layer.channel_statistics(jobs)["messages_pending"] == 0, "none")
        assert layer.channel_statistics(jobs)["messages_max_age"] == 0
        assert layer.channel_statistics(others)["messages_count"] == 1

    def test_the_statistics_of_the_layer(self, layer: BaseChannelLayer, unique: Unique) -> None:
        for number in range(3):
            layer.send(unique("jobs"), {"n": number})
        layer.send(unique("others"), {})
        layer.send(layer.new_channel("reply!"), {})
        wait_until(lambda: layer.statistics().get("messages_pending") == 4, "all of them")
        found = layer.statistics([unique("others"), unique("never-used")])
        assert set(found) <= statistics.KEYS
        assert found["messages_count"] == 4
        assert 0 <= found.get("messages_max_age", 0) < 30

    def test_full_channels_are_counted(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer(capacity=1)
        reply = layer.new_channel("reply!")
        layer.send(unique("jobs"), {})
        for times in (1, 2):
            with pytest.raises(ChannelFull):
                layer.send(unique("jobs"), {})
            assert layer.channel_statistics(unique("jobs"))["channel_full_count"] == times
        assert layer.statistics()["channel_full_count"] == 2
        assert layer.channel_statistics(unique("others"))["channel_full_count"] == 0
        assert layer.channel_statistics(reply) == {"channel_full_count": 0}

    def test_rates_are_since_an_earlier_look(
        self, layer: BaseChannelLayer, unique: Unique, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(statistics, "_LEAST", 0.0)
        assert "messages_count_per_second" not in layer.channel_statistics(unique("jobs"))
        layer.send(unique("jobs"), {})
        wait_until(lambda: layer.depth(unique("jobs")) != 0, "the message")
        assert layer.channel_statistics(unique("jobs"))["messages_count_per_second"] > 0

    def test_names_are_checked(self, layer: BaseChannelLayer) -> None:
        with pytest.raises(TypeError, match="'a b'"):
            layer.channel_statistics("a b")
