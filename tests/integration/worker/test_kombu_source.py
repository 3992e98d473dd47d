"""The source of a layer on a broker of Kombu's, read by threads of this process."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from celery.exceptions import Reject

from channelsq.core import wire_version
from channelsq.layers import KombuChannelLayer
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE, task_message
from channelsq.options import consumer
from channelsq.redis_core.suspects import MOST_DEATHS
from channelsq.worker.sources import newer
from channelsq.worker.sources.crew import LEAST
from tests.support.readers import Reader
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]

BROKERS = ["redis", pytest.param("amqp", marks=pytest.mark.rabbitmq)]

#: The broker that delivers again what a lost connection held, at once.
AMQP = pytest.mark.parametrize("make", [pytest.param("amqp", marks=pytest.mark.rabbitmq)], indirect=True)


@pytest.fixture(params=BROKERS)
def make(request: pytest.FixtureRequest, redis_url: str) -> Callable[[], KombuChannelLayer]:
    """Makes a layer of one kind, always with the same queues."""
    prefix = secrets.token_hex(4)
    groups = redis_url.rsplit("/", 1)[0] + "/13"
    url = groups if request.param == "redis" else request.getfixturevalue("rabbitmq_url")
    return lambda: KombuChannelLayer(url=url, groups_url=groups, prefix=prefix)


def place_of(delivery: Any) -> Any:
    """Return a mark that tells a delivery from the redelivered one of the same message."""
    return getattr(delivery, "message", None) or delivery.tag


@pytest.fixture
def read(make: Callable[[], KombuChannelLayer]) -> Iterator[Callable[..., Reader]]:
    """Starts a reader; all of its messages must be done with at the end."""
    readers: list[Reader] = []

    def start(run: Callable[..., Any], threads: int = 1) -> Reader:
        readers.append(Reader(make(), run, threads))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


def test_each_message_runs_once_in_order(read: Callable[..., Reader]) -> None:
    ran: list[int] = []
    reader = read(lambda message: ran.append(message["number"]))
    for number in range(50):
        reader.send(number)
    wait_until(lambda: len(ran) == 50, "fifty runs")
    assert ran == list(range(50))


def test_consumers_that_wait_run_at_once(read: Callable[..., Reader]) -> None:
    together = threading.Barrier(4)
    passed: list[int] = []

    def run(message: Any) -> None:
        together.wait(20)
        passed.append(message["number"])

    reader = read(run, threads=4)
    for number in range(8):
        reader.send(number)
    wait_until(lambda: sorted(passed) == list(range(8)), "two rounds of four")


def test_messages_are_acknowledged_while_others_are_waited_for(read: Callable[..., Reader]) -> None:
    """More than the source may hold at once come while one consumer is stuck."""
    release = threading.Event()
    ran: list[int] = []

    def run(message: Any) -> None:
        if message["number"] == 0:
            release.wait(30)
        ran.append(message["number"])

    reader = read(run, threads=2)
    reader.send(0)
    for number in range(1, 81):
        reader.send(number)
    wait_until(lambda: len(ran) == 80, "all the others")
    release.set()
    wait_until(lambda: len(ran) == 81, "the one that was stuck")


def test_a_rejected_message_comes_again(read: Callable[..., Reader]) -> None:
    redelivered: list[bool] = []

    def run(message: Any) -> None:
        redelivered.append(message.is_redelivered)
        if len(redelivered) == 1:
            raise Reject("later", requeue=True)

    read(run).send()
    wait_until(lambda: redelivered == [False, True], "a second run")


@AMQP
def test_a_source_that_ends_gives_back_what_it_has_not_begun(
    read: Callable[..., Reader], make: Callable[[], KombuChannelLayer]
) -> None:
    begun, release = threading.Event(), threading.Event()
    ran: list[int] = []

    def stuck(message: Any) -> None:
        ran.append(message["number"])
        begun.set()
        release.wait(30)

    layer = make()
    for number in range(10):
        layer.send("work", {"number": number})
    first = Reader(layer, stuck, 1)
    assert begun.wait(20)
    assert len(first.source._held) > 1
    first.crew.stop()
    release.set()
    first.crew.wait()
    first.crew.close()
    first.end()
    assert ran == [0]
    read(lambda message: ran.append(message["number"]))
    wait_until(lambda: len(ran) == 10, "the others")
    assert ran == list(range(10))


def test_another_try_is_no_message_that_comes_again(read: Callable[..., Reader]) -> None:
    tries: list[int] = []

    @consumer(bind=True, max_retries=3)
    def run(task: Any, message: Any) -> None:
        tries.append(task.request.retries)
        if task.request.retries == 0:
            try:
                raise task.retry(countdown=0)
            finally:  # it is sent, and comes while this one is held
                wait_until(lambda: len(tries) == 2, "the other try")

    reader = read(run, threads=2)
    reader.send()
    wait_until(lambda: len(tries) == 2, "two tries")
    wait_until(lambda: not reader.source._held, "the end")
    assert tries == [0, 1]


def test_what_comes_again_while_its_consumer_runs_is_run_once(read: Callable[..., Reader]) -> None:
    begun, release = threading.Event(), threading.Event()
    ran: list[int] = []

    def run(message: Any) -> None:
        ran.append(message["number"])
        begun.set()
        release.wait(30)

    reader = read(run, threads=2)
    layer = reader.layer.channel_layer
    send = layer.prepare("work", {"number": 1})._replace(identity="the same")
    layer.dispatch((send,))
    assert begun.wait(20)
    (delivery,) = reader.source._held.values()
    first = place_of(delivery)
    layer.dispatch((send,))
    wait_until(lambda: place_of(delivery) != first, "the second one")
    release.set()
    wait_until(lambda: not reader.source._held, "the end")
    assert ran == [1]


@pytest.mark.parametrize("make", ["redis"], indirect=True)
def test_a_consumer_that_takes_longer_than_the_visibility_timeout_runs_once(
    make: Callable[..., KombuChannelLayer],
) -> None:
    options = {"visibility_timeout": 1, "unacked_restore_interval": 0.1, "unacked_restore_throttle": 1}
    release = threading.Event()
    ran: list[int] = []

    def run(message: Any) -> None:
        ran.append(message["number"])
        release.wait(30)

    layer = make()
    layer._transport_options.update(options)
    reader = Reader(layer, run, 2)
    try:
        reader.send(1)
        (delivery,) = wait_until(lambda: [*reader.source._held.values()], "the message")
        first = delivery.message
        wait_until(lambda: delivery.message is not first, "it to come again")
        release.set()
        wait_until(lambda: not reader.source._held, "the end")
        assert ran == [1]
    finally:
        reader.close()


@AMQP
def test_a_consumer_that_outlives_its_connection_runs_once(read: Callable[..., Reader]) -> None:
    begun, release = threading.Event(), threading.Event()
    ran: list[str] = []

    def run(message: Any) -> None:
        ran.append("begun")
        begun.set()
        release.wait(30)
        ran.append("ended")

    reader = read(run, threads=2)
    reader.send()
    assert begun.wait(20)
    (delivery,) = reader.source._held.values()
    reader.cut()
    wait_until(lambda: delivery.number == reader.source.connections > 1, "the message to come again")
    release.set()
    wait_until(lambda: not reader.source._held, "the end")
    assert ran == ["begun", "ended"]


@AMQP
def test_a_consumer_that_ends_before_its_message_comes_again_runs_once(read: Callable[..., Reader]) -> None:
    ran: list[int] = []
    begun, release = threading.Event(), threading.Event()

    def run(message: Any) -> None:
        ran.append(message["number"])
        begun.set()
        if message["number"] == 0:
            release.wait(30)

    reader = read(run)
    reader.send(0)
    assert begun.wait(20)
    with getattr(reader.source, "_reading", reader.source._lock):
        reader.cut()
        release.set()
        wait_until(lambda: not reader.source._held, "the consumer to end")
    reader.send(1)
    wait_until(lambda: ran == [0, 1], "the next message")
    wait_until(lambda: not reader.source._done, "the message to come again, and to be acknowledged")
    assert ran == [0, 1]


@AMQP
def test_what_runs_at_most_once_is_acknowledged_before(read: Callable[..., Reader]) -> None:
    ran: list[int] = []

    @consumer(at_most_once=True)
    def run(message: Any) -> None:
        ran.append(message["number"])
        reader.cut()

    reader = read(run)
    reader.send(0)
    wait_until(lambda: ran == [0], "the run")
    wait_until(lambda: reader.source.connections > 1 and reader.source._connection, "another connection")
    reader.send(1)
    wait_until(lambda: ran == [0, 1], "the next message")


@AMQP
def test_a_message_that_processes_died_with_is_dropped(
    read: Callable[..., Reader], caplog: pytest.LogCaptureFixture
) -> None:
    """A process that dies leaves its mark, and its message to the next one."""
    ran: list[bool] = []

    def run(message: Any) -> None:
        ran.append(message.is_redelivered)
        if not message.is_redelivered:
            for number in range(1, MOST_DEATHS + 1):
                assert reader.layer.begin(f"death {number} {message.id}")
            raise Reject("as a process that dies", requeue=True)

    with caplog.at_level(logging.ERROR, "channelsq.worker"):
        reader = read(run)
        reader.send()
        wait_until(lambda: "5 processes died with it" in caplog.text, "the message to be dropped")
    assert ran == [False]


# -- what needs a newer worker


def _publish_newer(layer: KombuChannelLayer, number: int) -> None:
    queue = layer.queue("work")
    headers, body = task_message("work", queue.name, codec.dumps({"number": number}), delay=0, expiry=60)
    with layer.producer() as producer:
        producer.publish(
            body,
            exchange="",
            routing_key=queue.name,
            headers={**headers, "channelsq_needs": 2},
            content_type=CONTENT_TYPE,
            content_encoding="binary",
            declare=[queue],
        )


@pytest.mark.ways("redis")
def test_messages_for_a_newer_worker_are_left_until_there_is_one(
    read: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(newer, "HELD", 5.0)
    ran: list[int] = []
    seen: list[Any] = []
    reader = read(lambda message: ran.append(message["number"]))
    opened = reader.source.open

    def see(delivery: Any) -> Any:
        message = opened(delivery)
        if "channelsq_needs" in message.headers:
            seen.append(delivery)
        return message

    monkeypatch.setattr(reader.source, "open", see)
    many = LEAST + 8  # more than the source may hold of others
    layer = reader.layer.channel_layer
    assert isinstance(layer, KombuChannelLayer)
    for number in range(many):
        _publish_newer(layer, number)
    for number in range(100, 110):
        reader.send(number)
    wait_until(lambda: sorted(ran) == list(range(100, 110)), "the others")
    assert len(seen) == many  # none was given back to make room for the others
    monkeypatch.setattr(newer, "HELD", 0.3)
    wait_until(lambda: len(seen) >= 3 * many, "them to come again")
    began, before = monotonic(), len(seen)
    wait_until(lambda: len(seen) >= before + 2 * many, "them to come again")
    assert (len(seen) - before) / (monotonic() - began) < many / newer.HELD * 1.5  # nothing spins
    told = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "newer_wire"]
    assert len([line for line in told if "is left to newer workers: it needs wire version 2" in line]) == 1
    monkeypatch.setattr(wire_version, "WIRE_VERSION", 2)
    wait_until(lambda: sorted(ran) == [*range(many), *range(100, 110)], "all of them, once it is newer")
