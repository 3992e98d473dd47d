"""The source of a layer on RabbitMQ: sends and acknowledgements, queues of other kinds, messages that are held long."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection

from channelsq import Channel
from channelsq.exceptions import ChannelFull
from channelsq.layers import KombuChannelLayer
from channelsq.layers.amqp import held_too_long
from channelsq.layers.amqp.amqp_publisher import AmqpPublisher
from tests.support.readers import Reader
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq, pytest.mark.timeout(60)]

Read = Callable[..., Reader]


@pytest.fixture
def make(redis_url: str, rabbitmq_url: str) -> Iterator[Callable[..., KombuChannelLayer]]:
    """Makes layers with the same queues, which are deleted in the end."""
    made: list[KombuChannelLayer] = []
    prefix = secrets.token_hex(4)

    def make(**config: Any) -> KombuChannelLayer:
        groups = redis_url.rsplit("/", 1)[0] + "/13"
        made.append(KombuChannelLayer(url=rabbitmq_url, groups_url=groups, prefix=prefix, **config))
        return made[-1]

    yield make
    with Connection(rabbitmq_url) as connection:
        channel: Any = connection.default_channel
        for name in {name for layer in made for name in layer.used}:
            channel.queue_delete(name)
    for layer in made:
        layer.close()


@pytest.fixture
def read(make: Callable[..., KombuChannelLayer]) -> Iterator[Read]:
    """Starts a reader; all of its messages must be done with at the end."""
    readers: list[Reader] = []

    def start(run: Callable[..., Any], threads: int = 1, **config: Any) -> Reader:
        readers.append(Reader(make(**config), run, threads))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


class Replies:
    """The messages to one client."""

    def __init__(self, layer: Any) -> None:
        self.channel = layer.new_channel("websocket.send!")
        prefix = self.channel.partition("!")[0] + "!"
        self.got: list[Any] = []
        self._listener = layer.listen(prefix, lambda channels, message, group: self.got.append(message.get("number")))

    def stop(self) -> None:
        self._listener.stop()


def test_what_consumers_send_arrives_in_order(read: Read) -> None:
    def run(message: Any) -> None:
        Channel(replies.channel, channel_layer=reader.layer).send({"number": message["number"]})

    reader = read(run)
    replies = Replies(reader.layer.channel_layer)
    try:
        for number in range(80):
            reader.send(number)
        wait_until(lambda: len(replies.got) == 80, "all replies")
        assert replies.got == list(range(80))
    finally:
        replies.stop()


def test_a_message_is_not_acknowledged_before_its_sends_are_confirmed(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = threading.Event()
    kept: list[tuple[Any, ...]] = []
    on_confirm = AmqpPublisher._on_confirm

    def keep(*args: Any) -> None:
        if holding.is_set():
            kept.append(args)
        else:
            on_confirm(*args)

    monkeypatch.setattr(AmqpPublisher, "_on_confirm", keep)

    def run(message: Any) -> None:
        holding.set()
        Channel(replies.channel, channel_layer=reader.layer).send({"number": message["number"]})

    reader = read(run)
    replies = Replies(reader.layer.channel_layer)
    try:
        layer = reader.layer.channel_layer
        layer.submit([layer.prepare("work", {"number": 1})], lambda place, error: None)
        wait_until(lambda: replies.got, "the reply")  # RabbitMQ has it, and its confirmation is kept
        assert [delivery.is_acknowledged for delivery in reader.source._done.values()] == [False]
        wait_until(lambda: kept, "the confirmation")
        holding.clear()
        for args in kept:
            on_confirm(*args)
        wait_until(lambda: not reader.source._done, "the acknowledgement")
    finally:
        holding.clear()
        replies.stop()


def test_what_was_sent_before_a_lost_connection_is_sent_once(read: Read) -> None:
    """The consumer is done, and nothing is acknowledged, when the connection is lost."""
    ran: list[int] = []

    def run(message: Any) -> None:
        ran.append(message["number"])
        Channel(replies.channel, channel_layer=reader.layer).send({"number": message["number"]})

    reader = read(run)
    replies = Replies(reader.layer.channel_layer)
    try:
        for number in range(30):
            reader.send(number)
            if number % 10 == 5:
                wait_until(lambda: reader.source._connection is not None, "a connection")
                reader.cut()
        wait_until(lambda: len(replies.got) >= 30 and not reader.source._held, "all replies", 30)
        # A message that was acknowledged on the lost connection comes again, and is known.
        assert sorted(set(replies.got)) == list(range(30))
        assert sorted(ran) == list(range(30))
    finally:
        replies.stop()


# -- held for long ---------------------------------------------------------------------------------


def test_a_consumer_that_runs_for_long_has_its_message_acknowledged_before(
    read: Read, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(held_too_long, "HELD", 0.5)
    release = threading.Event()
    ran: list[int] = []

    def run(message: Any) -> None:
        ran.append(message["number"])
        release.wait(30)

    with caplog.at_level(logging.WARNING, "channelsq.worker"):
        reader = read(run, threads=2)
        reader.send(1)
        wait_until(lambda: "its message is acknowledged now" in caplog.text, "the early acknowledgement")
        reader.cut()
        wait_until(lambda: reader.source.connections > 2 and reader.source._connection, "another connection")
        release.set()
        wait_until(lambda: not reader.source._held, "the end")
    assert ran == [1]


def test_a_delayed_message_outlives_the_time_for_which_it_may_be_held(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_too_long, "HELD", 0.5)
    ran: list[float] = []
    reader = read(lambda message: ran.append(time.monotonic()))
    began = time.monotonic()
    Channel("work", channel_layer=reader.layer).send({"number": 1}, delay=4)
    first = wait_until(lambda: [delivery.tag for delivery in reader.source._held.values()], "the message")
    wait_until(lambda: [each.tag for each in reader.source._held.values()] not in ([], first), "a copy of it")
    wait_until(lambda: ran, "the run")
    assert 4 <= ran[0] - began < 8
    wait_until(lambda: not (reader.source._held or reader.source._done), "the end")
    assert len(ran) == 1


# -- queues of other kinds -------------------------------------------------------------------------


def test_quorum_queues(read: Read) -> None:
    ran: list[int] = []
    reader = read(lambda message: ran.append(message["number"]), queue_type="quorum")
    Channel("work", channel_layer=reader.layer).send({"number": 100}, delay=1)
    for number in range(50):
        reader.send(number)
    wait_until(lambda: len(ran) == 51, "all runs")
    assert ran[:50] == list(range(50))


def test_a_delayed_crowd_does_not_keep_others_from_quorum_queues(read: Read) -> None:
    ran: list[int] = []
    reader = read(lambda message: ran.append(message["number"]), queue_type="quorum", capacity=1000)
    for number in range(100, 180):
        Channel("work", channel_layer=reader.layer).send({"number": number}, delay=5)
    for number in range(10):
        reader.send(number)
    wait_until(lambda: len(ran) >= 10, "the others", 4.5)
    assert ran == list(range(10))
    wait_until(lambda: len(ran) == 90, "all runs", 20)


def test_rabbitmq_itself_keeps_an_exact_capacity(make: Callable[..., KombuChannelLayer]) -> None:
    """Two processes' worth of layers pass a capacity together where each only asks how full a queue is."""
    first, second = (make(capacity=20, exact_capacity=True) for _ in range(2))
    full = []

    def send(layer: KombuChannelLayer) -> None:
        for number in range(20):
            try:
                layer.send("work", {"number": number})
            except ChannelFull as error:
                full.append(error)

    threads = [threading.Thread(target=send, args=(layer,)) for layer in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert first.depth("work") == 20
    assert len(full) == 20
    assert {error.channel for error in full} == {"work"}
