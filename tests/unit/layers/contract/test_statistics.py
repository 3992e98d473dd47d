"""The statistics that the contract's tests cannot see: bounds, rates after a restart, routed channels."""

from __future__ import annotations

import pytest

from channelsq import route
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ChannelFull
from channelsq.layers import InMemoryChannelLayer
from channelsq.layers.contract import statistics
from channelsq.layers.contract.statistics import Tally


def consume(message: object) -> None:
    """Do nothing."""


def test_a_process_counts_so_many_channels_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_MOST_CHANNELS", 2)
    tally = Tally()
    for name in ("a", "b", "c", "a"):
        tally.count_sent(name)
        tally.count_full(ChannelFull(name, 1))
    assert [tally.sent_to(name) for name in "abc"] == [2, 1, 0]
    assert [tally.full_of(name) for name in "abc"] == [2, 1, 0]
    assert tally.full == 4, "the total is complete"
    assert tally.channels() == {"a", "b"}


def test_channels_of_one_process_share_a_number() -> None:
    tally = Tally()
    for name in ("websocket.send.p1!x", "websocket.send.p1!y", "http.request.body?a", "http.request.body?b"):
        tally.count_full(ChannelFull(name, 1))
    assert tally.full_of("websocket.send.p1!z") == 2
    assert tally.full_of("websocket.send.p2!x") == 0
    assert tally.full_of("http.request.body?c") == 2


def test_a_broker_that_counts_anew_has_no_negative_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_LEAST", 0.0)
    layer = InMemoryChannelLayer()
    layer.send("jobs", {})
    layer.channel_statistics("jobs")
    layer.flush()
    assert "messages_count_per_second" not in layer.channel_statistics("jobs")


def test_the_site_adds_up_its_routed_channels() -> None:
    """Also those that this process has never used, as in a shell."""
    layer = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [route("jobs", consume), route("mails", consume)])
    asked: list[str] = []
    inner = layer.channel_layer
    state = inner.channel_state
    inner.channel_state = lambda channel: asked.append(channel) or state(channel)  # type: ignore[method-assign,func-returns-value]
    assert layer.statistics() == layer.global_statistics()
    assert sorted(set(asked)) == ["jobs", "mails"]
