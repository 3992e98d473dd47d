"""Marks of runs that must not be repeated."""

from __future__ import annotations

from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique


class MarkContract(LayerFixtures):
    """Tests of ``begin`` and ``end``, for layers with a store of marks."""

    def test_a_run_begins_once(self, layer: BaseChannelLayer, unique: Unique) -> None:
        assert layer.begin(unique("a")) is True
        assert layer.begin(unique("a")) is False
        assert layer.begin(unique("b")) is True

    def test_a_run_that_comes_again_on_purpose_begins_again(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.begin(unique("a"))
        layer.begin(unique("b"))
        layer.end(unique("a"), at_once=True)
        assert layer.begin(unique("a")) is True
        assert layer.begin(unique("b")) is False

    def test_the_mark_of_a_run_that_ended_is_kept_until_its_message_is_acknowledged(
        self, layer: BaseChannelLayer, unique: Unique
    ) -> None:
        layer.begin(unique("a"))
        layer.end(unique("a"))
        # A layer inside one process redelivers nothing.
        assert layer.begin(unique("a")) is layer.in_process

    def test_another_process_sees_a_mark(self, make_layer: MakeLayer, unique: Unique) -> None:
        one, other = make_layer(), make_layer()
        one.begin(unique("a"))
        assert other.begin(unique("a")) is one.in_process

    def test_a_mark_can_be_looked_for(self, layer: BaseChannelLayer, unique: Unique) -> None:
        assert layer.has_begun(unique("a")) is False
        layer.begin(unique("a"))
        assert layer.has_begun(unique("a")) is True
        layer.end(unique("a"), at_once=True)
        assert layer.has_begun(unique("a")) is False

    def test_flush_forgets_marks_of_its_own_prefix(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.begin(unique("a"))
        layer.flush()
        assert layer.begin(unique("a")) is True

    def test_ending_an_unknown_run_is_no_error(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.end(unique("a"))
        layer.end(unique("a"), at_once=True)
        assert layer.begin(unique("a")) is True
