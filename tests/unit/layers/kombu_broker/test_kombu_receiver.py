"""Messages for other channels that a Kombu layer's ``receive`` took off a process's queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from channelsq.layers import KombuChannelLayer
from channelsq.layers.kombu_broker import kombu_receiver


@pytest.fixture
def layer() -> Iterator[KombuChannelLayer]:
    layer = KombuChannelLayer(url="memory://", expiry=10)
    yield layer
    layer.flush()
    layer.close()


def test_it_waits_for_its_reader(layer: KombuChannelLayer) -> None:
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    for number in range(3):
        layer.send(one, {"n": number})
    assert layer.receive([two]) == (None, None)
    assert [layer.receive([one])[1] for _ in range(4)] == [{"n": 0}, {"n": 1}, {"n": 2}, None]


def test_it_expires(layer: KombuChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    layer.send(one, {"n": 1})
    assert layer.receive([two]) == (None, None)
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 10)
    monkeypatch.setattr(kombu_receiver, "time", later)
    assert layer.receive([one]) == (None, None)
    layer.send(two, {"n": 2})
    assert layer.receive([one]) == (None, None)
    assert [entry.channel for inbox in layer._receiver._inboxes.values() for entry in inbox] == [two]


def test_it_is_bounded_and_what_is_dropped_is_told(
    layer: KombuChannelLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kombu_receiver, "MOST_WAITING", 2)
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    for number in range(5):
        layer.send(one, {"n": number})
    with caplog.at_level(logging.WARNING):
        assert layer.receive([two]) == (None, None)
    assert [record.message.split(":")[0] for record in caplog.records if record.name == kombu_receiver.logger.name] == [
        f"1 dropped of the messages to channels like {two}"
    ] * 3
    assert [layer.receive([one])[1] for _ in range(3)] == [{"n": 3}, {"n": 4}, None]
