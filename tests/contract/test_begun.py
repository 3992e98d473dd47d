"""Marks of runs that must not be repeated, on every layer."""

from __future__ import annotations

from collections.abc import Callable

from channelsq.layers import BaseChannelLayer, KombuChannelLayer
from channelsq.layers.groups.begun_marks import MOST_IN_MEMORY, MemoryBegun

MakeLayer = Callable[..., BaseChannelLayer]
Unique = Callable[[str], str]


def test_a_run_begins_once(layer: BaseChannelLayer, unique: Unique) -> None:
    assert layer.begin(unique("a")) is True
    assert layer.begin(unique("a")) is False
    assert layer.begin(unique("b")) is True


def test_a_run_that_comes_again_on_purpose_begins_again(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.begin(unique("a"))
    layer.begin(unique("b"))
    layer.end(unique("a"), at_once=True)
    assert layer.begin(unique("a")) is True
    assert layer.begin(unique("b")) is False


def test_the_mark_of_a_run_that_ended_is_kept_until_its_message_is_acknowledged(
    layer: BaseChannelLayer, unique: Unique
) -> None:
    layer.begin(unique("a"))
    layer.end(unique("a"))
    # Of a layer inside one process nothing comes again.
    assert layer.begin(unique("a")) is layer.in_process


def test_another_process_sees_a_mark(make_layer: MakeLayer, unique: Unique) -> None:
    one, other = make_layer(), make_layer()
    one.begin(unique("a"))
    assert other.begin(unique("a")) is one.in_process


def test_a_mark_can_be_looked_for(layer: BaseChannelLayer, unique: Unique) -> None:
    assert layer.has_begun(unique("a")) is False
    layer.begin(unique("a"))
    assert layer.has_begun(unique("a")) is True
    layer.end(unique("a"), at_once=True)
    assert layer.has_begun(unique("a")) is False


def test_flush_forgets_marks_of_its_own_prefix(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.begin(unique("a"))
    layer.flush()
    assert layer.begin(unique("a")) is True


def test_ending_an_unknown_run_is_no_error(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.end(unique("a"))
    layer.end(unique("a"), at_once=True)
    assert layer.begin(unique("a")) is True


def test_a_layer_without_a_place_for_marks_says_so() -> None:
    assert KombuChannelLayer(url="amqp://localhost").begin("a") is None
    assert KombuChannelLayer(url="amqp://localhost").has_begun("a") is None


def test_a_process_keeps_so_many_marks() -> None:
    marks = MemoryBegun()
    for number in range(MOST_IN_MEMORY + 1):
        assert marks.begin(str(number))
    assert marks.begin("0")
    assert not marks.begin(str(MOST_IN_MEMORY))
