"""The source of each layer: what a worker reads it through, polled by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from channelsq.layers import (
    BaseChannelLayer,
    InMemoryChannelLayer,
    IPCChannelLayer,
    KombuChannelLayer,
    RedisChannelLayer,
)
from channelsq.layers.contract.outbox import collected_here
from channelsq.layers.contract.source_contract import Source, SourceOptions
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE
from tests.contract.conftest import MakeLayer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

#: The layers on Redis Streams.
STREAMS = RedisChannelLayer, ShardedChannelLayer


class Worker:
    """A source that a test polls.

    Args:
        layer: its layer.
        channels: what it reads.
        credit: how many messages it may hold.
    """

    def __init__(self, layer: BaseChannelLayer, *channels: str, credit: int = 10) -> None:
        self.source: Source[Any] = layer.source(SourceOptions(channels, credit, {CONTENT_TYPE}))
        self.source.connect()

    def poll(self, seconds: float = 0.2) -> list[Any]:
        self.source.connect()
        return list(self.source.poll(seconds)) if self.source.has_credit() else []

    def take(self, number: int = 1) -> list[Any]:
        """Poll until there are so many deliveries."""
        found: list[Any] = []

        def enough() -> bool:
            found.extend(self.poll())
            return len(found) >= number

        wait_until(enough, f"{number} deliveries")
        assert len(found) == number
        return found

    def read(self, delivery: Any) -> tuple[str, dict[str, Any]]:
        """Return the channel and the content of a message, as the intake reads them."""
        plain = self.source.plain(delivery)
        if plain is not None:
            channel, identity, content = plain
            assert identity
            return channel, content
        message = self.source.open(delivery)
        assert message is not None
        assert message.headers["task"] == self.source.queue_of(delivery)
        decoded = codec.loads(message.body) if message.content_type == CONTENT_TYPE else message.payload
        (channel, content), _, _ = decoded
        return channel, content

    def is_redelivered(self, delivery: Any) -> bool:
        message = self.source.open(delivery)
        assert message is not None
        return self.source.is_redelivered(delivery, message)

    def contents(self, number: int) -> list[dict[str, Any]]:
        """Take and settle messages, and return what is in them."""
        found = []
        for delivery in self.take(number):
            found.append(self.read(delivery)[1])
            self.source.settle(delivery, None)
        self.source.flush()
        return found

    def gets_nothing(self) -> bool:
        return not any(self.poll(0.1) for _ in range(3))


def does_not_say(layer: BaseChannelLayer) -> bool:
    """Whether a layer's messages that come again do not say so: those of Kombu's transport in memory."""
    return isinstance(layer, KombuChannelLayer) and layer.in_process


@pytest.fixture
def work(layer: BaseChannelLayer) -> Iterator[Callable[..., Worker]]:
    """Makes workers of the layer, and closes them."""
    workers: list[Worker] = []

    def make(*channels: str, **options: Any) -> Worker:
        workers.append(Worker(layer, *channels, **options))
        return workers[-1]

    yield make
    for each in workers:
        each.source.close()


Work = Callable[..., Worker]
Unique = Callable[[str], str]


# -- reading


def test_what_was_sent_is_read_in_order(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    for number in range(5):
        layer.send(jobs, {"n": number})
    found = worker.take(5)
    assert [worker.read(each) for each in found] == [(jobs, {"n": number}) for number in range(5)]
    for each in found:
        assert worker.source.queue_of(each) == layer.queue_name(jobs)
        assert not worker.source.is_lost(each)
        message = worker.source.open(each)
        assert message is not None
        assert not worker.source.is_redelivered(each, message)
        assert not worker.source.is_expired(each, message)


def test_no_more_is_held_than_the_credit(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs, credit=2)
    for number in range(4):
        layer.send(jobs, {"n": number})
    first, second = worker.take(2)
    assert not worker.source.has_credit()
    worker.source.make_room(1)  # one of them waits for its time
    (third,) = worker.take(1)
    assert not worker.source.has_credit()
    worker.source.settle(first, None)
    assert worker.source.has_credit()
    (fourth,) = worker.take(1)
    assert [worker.read(each)[1]["n"] for each in (second, third, fourth)] == [1, 2, 3]


def test_channels_are_read_and_read_no_more(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    first, second = unique("first"), unique("second")
    worker = work(first)
    layer.send(second, {"n": 0})
    assert worker.gets_nothing()
    worker.source.read(second)
    worker.source.read(second)
    assert worker.contents(1) == [{"n": 0}]
    worker.source.cease(second)
    worker.poll(0)
    layer.send(second, {"n": 1})
    layer.send(first, {"n": 2})
    assert worker.contents(1) == [{"n": 2}]
    assert work(second).contents(1) == [{"n": 1}]


def test_what_was_not_read_is_polled_again(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    found = worker.take()
    worker.source.unread(found)
    assert worker.contents(1) == [{"n": 0}]
    worker.source.close()
    assert work(jobs).gets_nothing()


def test_a_poll_that_waits_is_interrupted(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    worker = work(unique("jobs"))
    worker.poll(0)
    polled: list[list[Any]] = []
    thread = threading.Thread(target=lambda: polled.append(worker.poll(60)))
    thread.start()
    worker.source.interrupt()
    thread.join(20)
    assert polled == [[]]


# -- what becomes of a message


def test_what_is_settled_does_not_come_again(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    worker.contents(1)
    worker.source.close()
    assert work(jobs).gets_nothing()


def test_sends_leave_with_the_acknowledgement_or_before_it(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs, answers = unique("jobs"), layer.new_channel("answers!")
    worker = work(jobs)
    layer.send(jobs, {"n": 0, "reply_channel": answers})
    (delivery,) = worker.take()
    worker.read(delivery)
    outbox = worker.source.outbox(delivery)

    def consume() -> None:
        collected_here.set(outbox)
        layer.settle((layer.prepare(answers, {"answer": 0}),))

    copy_context().run(consume)
    if outbox is None:
        assert layer.receive([answers], block=True) == (answers, {"answer": 0})
    else:
        assert layer.receive([answers]) == (None, None)
    worker.source.settle(delivery, outbox)
    worker.source.flush()
    if outbox is not None:
        assert layer.receive([answers], block=True) == (answers, {"answer": 0})
    assert layer.receive([answers]) == (None, None)
    worker.source.close()
    assert work(jobs).gets_nothing()


def test_the_outbox_of_a_lost_message_is_not_sent(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs, answers = unique("jobs"), layer.new_channel("answers!")
    worker = work(jobs)
    layer.send(jobs, {"n": 0, "reply_channel": answers})
    (delivery,) = worker.take()
    outbox = worker.source.outbox(delivery)
    if outbox is None:
        pytest.skip("its sends have left before")

    def consume() -> None:
        collected_here.set(outbox)
        layer.settle((layer.prepare(answers, {"answer": 0}),))

    copy_context().run(consume)
    worker.source.close()
    assert worker.source.is_lost(delivery)
    worker.source.settle(delivery, outbox)
    worker.source.flush()
    assert layer.receive([answers]) == (None, None)
    assert work(jobs).contents(1) == [{"n": 0, "reply_channel": answers}]


def test_another_worker_gets_what_a_closed_one_held(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    layer.send(jobs, {"n": 1})
    first, _ = worker.take(2)
    worker.source.settle(first, None)
    worker.source.close()
    other = work(jobs)
    (delivery,) = other.take()
    assert other.read(delivery) == (jobs, {"n": 1})
    assert other.is_redelivered(delivery) or does_not_say(layer)


def test_what_is_given_back_comes_again(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    (delivery,) = worker.take()
    worker.source.give_back(delivery)
    (again,) = worker.take()
    assert worker.read(again) == (jobs, {"n": 0})
    assert worker.is_redelivered(again) or does_not_say(layer)
    worker.source.settle(again, None)
    worker.source.close()
    assert work(jobs).gets_nothing()


def test_what_is_left_to_newer_workers_comes_again(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    (delivery,) = worker.take()
    worker.source.leave(delivery)
    (again,) = worker.take()
    assert worker.read(again) == (jobs, {"n": 0})
    if isinstance(layer, (*STREAMS, InMemoryChannelLayer)):  # others say so of all that was delivered
        assert not worker.is_redelivered(again)


@pytest.mark.parametrize("is_kept", [False, True], ids=["drop", "set aside"])
def test_what_is_not_run_does_not_come_again(
    layer: BaseChannelLayer, work: Work, unique: Unique, is_kept: bool
) -> None:
    jobs = unique("jobs")
    worker = work(jobs, credit=1)
    layer.send(jobs, {"n": 0})
    (delivery,) = worker.take()
    worker.read(delivery)
    if is_kept:
        worker.source.set_aside(delivery, "why not")
    else:
        worker.source.drop(delivery)
    assert worker.source.has_credit()
    worker.source.flush()
    worker.source.close()
    assert work(jobs).gets_nothing()
    dead = layer.channel_state(jobs).dead
    assert dead == (int(is_kept) if isinstance(layer, (*STREAMS, IPCChannelLayer)) else None)


def test_what_is_acknowledged_first_is_not_given_to_another(
    layer: BaseChannelLayer, work: Work, unique: Unique
) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    (delivery,) = worker.take()
    assert worker.source.acknowledge_first(delivery)
    worker.source.close()  # with its consumer in the middle
    assert work(jobs).gets_nothing()


def test_what_another_worker_has_is_not_acknowledged_first(layer: BaseChannelLayer, work: Work, unique: Unique) -> None:
    jobs = unique("jobs")
    worker = work(jobs)
    layer.send(jobs, {"n": 0})
    (delivery,) = worker.take()
    worker.source.close()
    assert not worker.source.acknowledge_first(delivery)
    assert work(jobs).contents(1) == [{"n": 0}]


# -- expiry


def test_what_has_expired_is_not_delivered_or_said_to_be(make_layer: MakeLayer, unique: Unique) -> None:
    layer, jobs = make_layer(expiry=0.5), unique("jobs")
    layer.send(jobs, {"n": 0})
    end = time.monotonic() + 0.7
    wait_until(lambda: time.monotonic() > end, "its time to be over")
    layer.send(jobs, {"n": 1})
    worker = Worker(layer, jobs)
    try:
        alive = []
        for delivery in (*worker.poll(2), *worker.poll(0.5)):
            assert worker.source.plain(delivery) is None or worker.read(delivery)[1] == {"n": 1}
            message = worker.source.open(delivery)
            assert message is not None
            if not worker.source.is_expired(delivery, message):
                alive.append(worker.read(delivery)[1])
            worker.source.settle(delivery, None)
        assert alive == [{"n": 1}]
    finally:
        worker.source.close()


def test_what_was_delivered_in_its_time_does_not_expire(make_layer: MakeLayer, unique: Unique) -> None:
    layer, jobs = make_layer(expiry=1), unique("jobs")
    layer.send(jobs, {"n": 0})
    worker = Worker(layer, jobs)
    (delivery,) = worker.take()
    message = worker.source.open(delivery)
    assert message is not None
    assert not worker.source.is_expired(delivery, message)
    worker.source.close()
