"""Handles of delayed sends, on every layer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channelsq import delayed
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.channel import Channel, Group
from channelsq.delayed import CHANNEL, DelayedSend, may_leave
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import KombuChannelLayer
from channelsq.message import Message
from channelsq.worker.running.execution import run_consumer
from tests.contract.conftest import MakeLayer
from tests.support.waiting import wait_until

Wrap = Callable[[], ChannelLayerWrapper]


@pytest.fixture
def process(make_layer: MakeLayer) -> Wrap:
    """Makes the layer of another process; of a layer inside a process, always the same."""
    made: list[ChannelLayerWrapper] = []

    def make() -> ChannelLayerWrapper:
        if not made or not made[0].in_process:
            made.append(ChannelLayerWrapper(make_layer(), "default", []))
        return made[-1]

    return make


@pytest.fixture
def layer(process: Wrap) -> Iterator[ChannelLayerWrapper]:
    """A layer as the default one."""
    layer = process()
    old = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", old)


def next_message(layer: ChannelLayerWrapper, channel: str) -> Message:
    """Wait for a message, as a worker does."""

    def received() -> Message | None:
        _, content = layer.receive([channel])
        return None if content is None else Message(content, channel, layer)

    return wait_until(received, f"a message on {channel}")


def run(message: Message) -> list[dict[str, Any]]:
    """Run a consumer as a worker does; return the contents that it got."""
    seen: list[dict[str, Any]] = []
    consumer = delayed.deliver if message.channel_name == CHANNEL else lambda message: seen.append(message.content)
    run_consumer(consumer, message, "tests.consumer")
    return seen


def test_a_message_is_delivered_and_then_it_has_left(layer: ChannelLayerWrapper, process: Wrap) -> None:
    handle = Channel("jobs").send({"n": 1}, delay=0.05)
    assert run(next_message(process(), "jobs")) == [{"n": 1}]
    assert handle.cancel() is False
    assert delayed.cancel(handle.id) is False


def test_a_cancelled_message_is_not_delivered(layer: ChannelLayerWrapper, process: Wrap) -> None:
    """Cancelled by another process, which has the id."""
    handle = Channel("jobs").send({"n": 1}, delay=0.05)
    channel_layers.set("default", process())
    assert delayed.cancel(str(handle)) is True
    assert handle.cancel() is True  # again
    assert run(next_message(layer, "jobs")) == []
    channel_layers.set("default", layer)


def test_a_message_to_a_group_and_to_a_client(layer: ChannelLayerWrapper, process: Wrap) -> None:
    client = layer.new_channel("reply!")
    Group("room").add(client)
    for send in (Group("room").send, Channel(client).send):
        for gone in (False, True):
            handle = send({"text": "late", "bytes": b"\xff"}, delay=0.05)
            assert not gone or handle.cancel()
            run(next_message(process(), CHANNEL))
            if not gone:
                assert next_message(layer, client).content == {"text": "late", "bytes": b"\xff"}
                assert handle.cancel() is False
    assert layer.receive([client]) == (None, None)


def test_a_group_gets_it_as_it_is_then(layer: ChannelLayerWrapper) -> None:
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    Group("room").add(one)
    Group("room").send({"text": "late"}, delay=0.05)
    Group("room").discard(one)
    Group("room").add(two)
    run(next_message(layer, CHANNEL))
    assert next_message(layer, two).content == {"text": "late"}
    assert layer.receive([one]) == (None, None)


def test_a_redelivered_message_is_delivered_again(layer: ChannelLayerWrapper, process: Wrap) -> None:
    Channel("jobs").send({"n": 1}, delay=0.05)
    message = next_message(layer, "jobs")
    again = message.copy()
    assert run(message) == run(again) == [{"n": 1}]


def test_a_message_is_not_lost_with_its_record(layer: ChannelLayerWrapper) -> None:
    records = layer.channel_layer.records
    assert records is not None
    Channel("jobs").send({"n": 1}, delay=0.05)
    records.flush()
    assert run(next_message(layer, "jobs")) == [{"n": 1}]


def test_either_the_cancel_succeeds_or_the_delivery(layer: ChannelLayerWrapper, process: Wrap) -> None:
    other = process()
    for _ in range(30):
        handle, start = DelayedSend(layer, 60), threading.Barrier(2)
        won: list[str] = []

        def cancel(handle: DelayedSend = handle, start: threading.Barrier = start, won: list[str] = won) -> None:
            start.wait()
            if handle.cancel():
                won.append("cancelled")

        thread = threading.Thread(target=cancel)
        thread.start()
        start.wait()
        if may_leave(other, handle.id):
            won.append("left")
        thread.join()
        assert len(won) == 1, won


def test_a_layer_without_a_place_for_records() -> None:
    layer = ChannelLayerWrapper(KombuChannelLayer(url="amqp://localhost"), "default", [])
    handle = DelayedSend(layer, 60)
    with pytest.raises(InvalidChannelLayerError, match="'groups_url'"):
        handle.cancel()
    assert may_leave(layer, handle.id)
    assert delayed.marked({"n": 1}, handle) == {"n": 1}
