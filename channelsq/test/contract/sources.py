"""Sources: how a worker reads a layer."""

from __future__ import annotations

import threading
import time
from typing import Any

from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import MakeLayer, Unique, wait_until
from channelsq.test.contract.source_worker import MakeWorker, SourceFixtures, SourceWorker


class ReadingContract(SourceFixtures):
    """Tests of polls, credit, channels and expiry."""

    def test_what_was_sent_is_read_in_order(self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique) -> None:
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

    def test_no_more_is_held_than_the_credit(self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique) -> None:
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

    def test_channels_are_read_and_read_no_more(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
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

    def test_what_was_not_read_is_polled_again(self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique) -> None:
        jobs = unique("jobs")
        worker = work(jobs)
        layer.send(jobs, {"n": 0})
        found = worker.take()
        worker.source.unread(found)
        assert worker.contents(1) == [{"n": 0}]
        worker.source.close()
        assert work(jobs).gets_nothing()

    def test_a_poll_that_waits_is_interrupted(self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique) -> None:
        worker = work(unique("jobs"))
        worker.poll(0)
        polled: list[list[Any]] = []
        thread = threading.Thread(target=lambda: polled.append(worker.poll(60)))
        thread.start()
        worker.source.interrupt()
        thread.join(20)
        assert polled == [[]]

    def test_what_has_expired_is_not_delivered_or_said_to_be(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer, jobs = make_layer(expiry=1), unique("jobs")
        layer.send(jobs, {"n": 0})
        end = time.monotonic() + 1.2
        wait_until(lambda: time.monotonic() > end, "its time to be over")
        layer.send(jobs, {"n": 1})
        worker = SourceWorker(layer, jobs)
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

    def test_what_was_delivered_in_its_time_does_not_expire(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer, jobs = make_layer(expiry=1), unique("jobs")
        layer.send(jobs, {"n": 0})
        worker = SourceWorker(layer, jobs)
        (delivery,) = worker.take()
        message = worker.source.open(delivery)
        assert message is not None
        assert not worker.source.is_expired(delivery, message)
        worker.source.close()
