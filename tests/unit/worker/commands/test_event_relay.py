"""Celery's events about consumers on their way to the worker's dispatcher."""

from __future__ import annotations

import pytest
from django.test import override_settings

from channelsq.worker.commands.event_relay import MOST, Relay
from tests.support.fakes.workers import FakeLoopingWorker, RecordingDispatcher


def test_off_unless_the_project_asks_for_it() -> None:
    relay = Relay(FakeLoopingWorker(RecordingDispatcher()))
    assert relay.enabled is False
    assert relay.of("a") is None
    with override_settings(CHANNEL_EVENTS=True):
        assert relay.enabled is True
        assert relay.of("a") is relay


@pytest.mark.parametrize(
    ("dispatcher", "enabled"),
    [
        (None, False),
        (RecordingDispatcher(enabled=False), False),
        (RecordingDispatcher(groups=("worker",)), False),
        (RecordingDispatcher(groups=("task",)), True),
    ],
    ids=["no dispatcher", "nobody listens", "of workers alone", "of tasks"],
)
@override_settings(CHANNEL_EVENTS=True)
def test_off_unless_somebody_listens_to_tasks(dispatcher: RecordingDispatcher | None, enabled: bool) -> None:
    assert Relay(FakeLoopingWorker(dispatcher)).enabled is enabled


@override_settings(CHANNEL_EVENTS=0.25)
def test_a_sample_has_all_of_a_message_or_nothing() -> None:
    relay = Relay(FakeLoopingWorker(RecordingDispatcher()))
    chosen = {str(number) for number in range(4000) if relay.of(str(number)) is not None}
    assert 800 < len(chosen) < 1200
    assert chosen == {str(number) for number in range(4000) if relay.of(str(number)) is not None}


def test_they_are_sent_in_the_workers_event_loop_in_order() -> None:
    dispatcher = RecordingDispatcher()
    worker = FakeLoopingWorker(dispatcher)
    relay = Relay(worker)
    relay.send("task-started", uuid="a")
    relay.send("task-succeeded", uuid="a", timestamp=1.0)
    assert dispatcher.sent == []
    assert worker.turn() == 1  # called once for both
    assert [kind for kind, _ in dispatcher.sent] == ["task-started", "task-succeeded"]
    assert dispatcher.sent[0][1]["timestamp"] > 1.0
    assert dispatcher.sent[1][1] == {"uuid": "a", "timestamp": 1.0}  # when it happened in its process
    relay.send("task-started", uuid="b")
    assert worker.turn() == 1


def test_while_the_dispatcher_is_away_a_bounded_number_waits() -> None:
    worker = FakeLoopingWorker(None)
    relay = Relay(worker)
    for number in range(MOST + 10):
        relay.send("task-started", uuid=number)
    worker.turn()
    worker.event_dispatcher = dispatcher = RecordingDispatcher()
    relay.send("task-started", uuid="last")
    worker.turn()
    assert len(dispatcher.sent) == MOST
    assert [fields["uuid"] for _, fields in dispatcher.sent[:2]] == [11, 12]  # the oldest were dropped
    assert dispatcher.sent[-1][1]["uuid"] == "last"
