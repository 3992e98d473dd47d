"""Sources: the outcomes of messages."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from channelsq.layers import BaseChannelLayer
from channelsq.layers.contract.outbox import Outbox, collected_here
from channelsq.test.contract.fixtures import Unique
from channelsq.test.contract.source_worker import MakeWorker, SourceFixtures


def send_into(outbox: Outbox | None, layer: BaseChannelLayer, channel: str) -> None:
    """Send a message, as a consumer does whose sends ``outbox`` collects."""

    def consume() -> None:
        collected_here.set(outbox)
        layer.settle((layer.prepare(channel, {"answer": 0}),))

    copy_context().run(consume)


class OutcomeContract(SourceFixtures):
    """Tests of settled, lost, returned and refused messages."""

    def test_what_is_settled_does_not_come_again(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
        jobs = unique("jobs")
        worker = work(jobs)
        layer.send(jobs, {"n": 0})
        worker.contents(1)
        worker.source.close()
        assert work(jobs).gets_nothing()

    def test_sends_leave_with_the_acknowledgement_or_before_it(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
        jobs, answers = unique("jobs"), layer.new_channel("answers!")
        worker = work(jobs)
        layer.send(jobs, {"n": 0, "reply_channel": answers})
        (delivery,) = worker.take()
        worker.read(delivery)
        outbox = worker.source.outbox(delivery)

        send_into(outbox, layer, answers)
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

    def test_the_outbox_of_a_lost_message_is_not_sent(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
        jobs, answers = unique("jobs"), layer.new_channel("answers!")
        worker = work(jobs)
        layer.send(jobs, {"n": 0, "reply_channel": answers})
        (delivery,) = worker.take()
        outbox = worker.source.outbox(delivery)
        if outbox is None:
            return  # such a layer's sends have left before

        send_into(outbox, layer, answers)
        worker.source.close()
        assert worker.source.is_lost(delivery)
        worker.source.settle(delivery, outbox)
        worker.source.flush()
        assert layer.receive([answers]) == (None, None)
        assert work(jobs).contents(1) == [{"n": 0, "reply_channel": answers}]

    def test_another_worker_gets_what_a_closed_one_held(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
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
        assert other.is_redelivered(delivery) or not self.says_redelivered(layer)

    def test_what_is_given_back_comes_again(self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique) -> None:
        jobs = unique("jobs")
        worker = work(jobs)
        layer.send(jobs, {"n": 0})
        (delivery,) = worker.take()
        worker.source.give_back(delivery)
        (again,) = worker.take()
        assert worker.read(again) == (jobs, {"n": 0})
        assert worker.is_redelivered(again) or not self.says_redelivered(layer)
        worker.source.settle(again, None)
        worker.source.close()
        assert work(jobs).gets_nothing()

    def test_what_is_left_to_newer_workers_comes_again(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
        jobs = unique("jobs")
        worker = work(jobs)
        layer.send(jobs, {"n": 0})
        (delivery,) = worker.take()
        worker.source.leave(delivery)
        (again,) = worker.take()
        assert worker.read(again) == (jobs, {"n": 0})
        if not self.says_left(layer):
            assert not worker.is_redelivered(again)

    @pytest.mark.parametrize("is_kept", [False, True], ids=["drop", "set aside"])
    def test_what_is_not_run_does_not_come_again(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique, is_kept: bool
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
        assert dead == (int(is_kept) if self.keeps_dead_letters(layer) else None)

    def test_what_is_acknowledged_first_is_not_given_to_another(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
        jobs = unique("jobs")
        worker = work(jobs)
        layer.send(jobs, {"n": 0})
        (delivery,) = worker.take()
        assert worker.source.acknowledge_first(delivery)
        worker.source.close()  # with its consumer in the middle
        assert work(jobs).gets_nothing()

    def test_what_another_worker_has_is_not_acknowledged_first(
        self, layer: BaseChannelLayer, work: MakeWorker, unique: Unique
    ) -> None:
        jobs = unique("jobs")
        worker = work(jobs)
        layer.send(jobs, {"n": 0})
        (delivery,) = worker.take()
        worker.source.close()
        assert not worker.source.acknowledge_first(delivery)
        assert work(jobs).contents(1) == [{"n": 0}]
