"""Marks of runs that must not be repeated, on every layer."""

from __future__ import annotations

from channelsq.layers import KombuChannelLayer
from channelsq.layers.groups.begun_marks import MOST_IN_MEMORY, MemoryBegun
from channelsq.test.contract import MarkContract


class TestMarks(MarkContract):
    """Every layer's marks."""


def test_a_layer_without_a_place_for_marks_says_so() -> None:
    assert KombuChannelLayer(url="amqp://localhost").begin("a") is None
    assert KombuChannelLayer(url="amqp://localhost").has_begun("a") is None


def test_a_process_keeps_so_many_marks() -> None:
    marks = MemoryBegun()
    for number in range(MOST_IN_MEMORY + 1):
        assert marks.begin(str(number))
    assert marks.begin("0")
    assert not marks.begin(str(MOST_IN_MEMORY))
