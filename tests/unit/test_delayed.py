"""Handles of delayed sends, without other processes; see tests/contract/test_delayed.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import Reject
from django.db import transaction

from channelsq import Channel, Group, delayed
from channelsq.asgi import ChannelLayerWrapper
from channelsq.delayed import CHANNEL, ID_KEY, DelayedSend
from channelsq.exceptions import BrokerUnavailable, InvalidChannelLayerError, MessageTooLarge
from channelsq.message import Message
from channelsq.worker.running.execution import run_consumer
from tests.support.fakes.records import FakeAwayRecords
from tests.support.layers import drain, installed, wrapped
from tests.support.logs import action_of
from tests.support.waiting import wait_until


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(consume_later_limit=2, message_size_limit=1000)
    with installed(layer):
        yield layer


def next_of(layer: ChannelLayerWrapper, channel: str) -> dict[str, Any]:
    def received() -> dict[str, Any] | None:
        return layer.receive([channel])[1]

    return wait_until(received, f"a message on {channel}")


def test_only_a_send_with_a_delay_has_a_handle(layer: ChannelLayerWrapper) -> None:
    for target in (Channel("a"), Group("b")):
        assert target.send({"n": 1}) is None
        assert target.send({"n": 1}, delay=None) is None
    assert drain(layer, "a") == [{"n": 1}, {"n": 1}]
    for target in (Channel("a"), Group("b"), Channel("a!b"), Channel("a?b")):
        handle = target.send({"n": 1}, delay=60)
        assert isinstance(handle, DelayedSend)
        assert str(handle) == handle.id
        assert repr(handle) == f"DelayedSend({handle.id!r})"
    assert Channel("a").send({"n": 1}, delay=0).id  # 0 is a delay, too


def test_what_cannot_be_sent_is_refused_when_it_is_asked_for(layer: ChannelLayerWrapper) -> None:
    for target in (Channel("a"), Group("b"), Channel("a!b")):
        with pytest.raises(TypeError, match="must be a dict"):
            target.send("text", delay=1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="'x'"):
            target.send({"x": object()}, delay=1)
        with pytest.raises(MessageTooLarge):
            target.send({"x": "x" * 1000}, delay=1)
        for delay in (-1, "soon", True, float("nan")):
            with pytest.raises(ValueError, match="delay must be seconds"):
                target.send({}, delay=delay)  # type: ignore[arg-type]
    assert layer.writes == []


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "1.2", f"{'a' * 32}.zz.default", f"{'a' * 32}.{'f' * 999}.default"])
def test_other_texts_are_no_ids(layer: ChannelLayerWrapper, text: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a delayed send"):
        delayed.cancel(text)


def test_the_id_names_the_layer(layer: ChannelLayerWrapper) -> None:
    other = wrapped(alias="elsewhere")
    handle = Channel("a", channel_layer=other).send({}, delay=60)
    with pytest.raises(InvalidChannelLayerError, match="elsewhere"):
        delayed.cancel(handle.id)
    assert handle.cancel()


def test_a_message_long_ago_has_left(layer: ChannelLayerWrapper) -> None:
    """The record of its delivery is gone by then."""
    old = DelayedSend(layer, 60)
    old.id = f"{'a' * 32}.1.default"
    assert old.cancel() is False
    assert delayed.cancel(old.id) is False


@pytest.mark.django_db(transaction=True)
def test_a_send_in_a_transaction_that_is_rolled_back_leaves_nothing(layer: ChannelLayerWrapper) -> None:
    with transaction.atomic():
        Channel("a").send({}, delay=0)
        Group("b").send({}, delay=0)
        transaction.set_rollback(True)
    assert layer.writes == []
    with transaction.atomic():
        Channel("a").send({}, delay=0)
        Group("b").send({}, delay=0)
        assert layer.writes == []
    assert layer.writes == [["a", CHANNEL]]


def test_sends_of_a_consumer_that_fails_are_dropped(layer: ChannelLayerWrapper) -> None:
    def consumer(message: Message) -> None:
        Group("b").send({}, delay=0)
        raise LookupError

    with pytest.raises(LookupError):
        run_consumer(consumer, Message({}, "jobs", layer), "tests.consumer")
    assert layer.writes == []


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_message_waits_for_the_records(
    layer: ChannelLayerWrapper, times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is delivered without them in the end."""
    monkeypatch.setattr(layer.channel_layer, "_records", FakeAwayRecords(times))
    Channel("jobs").send({"n": 1}, delay=0)
    seen: list[dict[str, Any]] = []
    runs = 0
    with caplog.at_level(logging.WARNING, "channelsq.worker"):
        while not seen:
            runs += 1
            content = next_of(layer, "jobs")
            assert ID_KEY in content
            run_consumer(
                lambda message: seen.append(message.content), Message(content, "jobs", layer), "tests.consumer"
            )
    assert seen == [{"n": 1}]
    assert runs == min(times, 2) + 1
    assert [action_of(record) for record in caplog.records] == (["delayed_unclaimed"] if times == 3 else [])


def test_a_message_comes_again_if_the_broker_is_away_as_well(
    layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    Channel("jobs").send({"n": 1}, delay=0)
    message = Message(next_of(layer, "jobs"), "jobs", layer)
    monkeypatch.setattr(layer.channel_layer, "_records", FakeAwayRecords(1))

    def dispatch(sends: Any) -> None:
        raise BrokerUnavailable("dispatch", "the broker is away")

    with monkeypatch.context() as away:
        away.setattr(layer.channel_layer, "dispatch", dispatch)
        with pytest.raises(Reject) as raised:
            run_consumer(lambda message: 1 / 0, message, "tests.consumer")
    assert vars(raised.value)["requeue"] is True


def test_a_cancelled_message_of_a_socket_is_reported_as_done(layer: ChannelLayerWrapper) -> None:
    """An application may delay what came from a socket, with its order."""
    client = layer.new_channel("websocket.send!")
    handle = Channel("jobs").send({"reply_channel": client, "order": 3}, delay=0)
    assert handle.cancel()
    run_consumer(lambda message: 1 / 0, Message(next_of(layer, "jobs"), "jobs", layer), "tests.consumer")
    assert drain(layer, client) == [{"done": 3}]
