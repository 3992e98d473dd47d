"""What a child of the prefork pool does with a batch, and how large the parent makes one."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, WorkerLostError
from celery import Celery
from celery.exceptions import Reject

from channelsq.layers.direct import Parcel
from channelsq.worker.prefork import LARGEST, SLICE, Item, PreforkLane, run_batch
from tests.support.apps import current


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app with its tasks traced, as a worker process has it."""
    from celery.app.trace import build_tracer

    with Celery("batches", broker="memory://", set_as_current=False) as app, current(app):

        @app.task(name="good", shared=False)
        def good(channel: str, content: dict[str, Any]) -> None:
            pass

        @app.task(name="bad", shared=False)
        def bad(channel: str, content: dict[str, Any]) -> None:
            raise ValueError("bad")

        @app.task(name="unwanted", shared=False)
        def unwanted(channel: str, content: dict[str, Any]) -> None:
            raise Reject("unwanted", requeue=True)

        @app.task(name="exits", shared=False)
        def exits(channel: str, content: dict[str, Any]) -> None:
            raise SystemExit(3)

        app.finalize()
        for task in app.tasks.values():
            task.ignore_result = True
            task.__trace__ = build_tracer(task.name, task, app=app)
        yield app


def item(task: str, number: int = 0) -> Item:
    request = {"id": str(number), "delivery_info": {}, "headers": {}, "is_eager": False, "ignore_result": True}
    return Item(task, str(number), ["channel", {"number": number}], {}, request)


def test_each_has_its_outcome(app: Celery) -> None:
    outcomes = run_batch([item("good"), item("bad"), item("unwanted"), item("good")])
    assert [outcome.failure is None for outcome in outcomes] == [True, False, False, True]
    assert outcomes[1].failure is not None
    assert isinstance(outcomes[1].failure[1].exception, ValueError)
    assert outcomes[2].failure is not None
    assert all(outcome.seconds >= 0 for outcome in outcomes)
    assert all(isinstance(outcome.parcel, Parcel) for outcome in outcomes)


def test_what_fails_outside_of_a_consumer_has_an_outcome_that_can_be_sent(app: Celery) -> None:
    outcomes = pickle.loads(pickle.dumps(run_batch([item("good"), item("exits"), item("good")])))
    assert len(outcomes) == 2  # the rest is given out again
    assert outcomes[1].failure is not None
    assert isinstance(outcomes[1].failure[1].exception, RuntimeError)


class Request:
    """A request that notes what becomes of it."""

    abandoned = acknowledged = given_back = failed = _already_cancelled = False
    id, args, kwargs = "id", ["channel", {}], dict[str, Any]()

    def __init__(self, task: str) -> None:
        self.type = task
        self.parcel: Parcel | None = None
        self.finished: list[Any] = []

    def finish(self, failure: Any) -> None:
        self.finished.append(failure)

    def context(self) -> dict[str, Any]:
        return {}

    def in_job(self, result: Any) -> None:
        pass

    def on_failure(self, error: Any) -> None:
        self.failed = True

    def give_back(self) -> None:
        self.given_back = True


class Worker:
    """What a lane needs of Celery's consumer."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pool = self.hub = self.controller = self
        self.called: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.called.append(callback)

    def _quick_acquire(self, callback: Any) -> None:
        callback()

    def _quick_release(self) -> None:
        pass

    def apply_async(self, function: Any, args: Any, *, error_callback: Any, **callbacks: Any) -> None:
        (self.batch,) = args
        self.failed = error_callback


def lane_with(tasks: list[str], paces: dict[str, float], limit: int = 2) -> PreforkLane:
    lane = PreforkLane(Worker(limit))
    lane._paces.update(paces)
    for task in tasks:
        lane.put(Request(task))
    return lane


@pytest.mark.parametrize(
    ("tasks", "paces", "sizes"),
    [
        (["new"] * 4, {}, [1, 1, 1, 1]),  # nothing is known of it
        (["quick"] * 40, {"quick": SLICE / 10.5}, [10, 10, 10, 5]),  # a slice each; the share of what is left
        (["quick"] * 8, {"quick": SLICE / 1000}, [4, 2, 1, 1]),  # shared between two processes
        (["quick"] * 1000, {"quick": SLICE / 1e6}, [LARGEST, LARGEST]),
        (["slow"] * 3, {"slow": 5.0}, [1, 1, 1]),
        (["quick", "slow", "quick", "quick"], {"quick": SLICE / 100, "slow": 5.0}, [1, 1, 1, 1]),
    ],
    ids=["unknown", "a slice", "shares", "largest", "slow", "a slow one is alone"],
)
def test_a_batch_is_a_slice_of_work(tasks: list[str], paces: dict[str, float], sizes: list[int]) -> None:
    lane = lane_with(tasks, paces)
    assert [len(lane._take()) for _ in sizes] == sizes


def test_what_was_not_begun_is_given_out_again() -> None:
    lane = lane_with(["a"] * 3, {"a": SLICE / 100}, limit=1)
    batch = lane._take()
    outcomes = run_outcomes(2)
    lane._done(batch, outcomes)
    assert [request.finished for request in batch] == [[None], [None], []]
    assert batch[0].parcel is outcomes[0].parcel
    assert lane._take() == [batch[2]]


def run_outcomes(count: int) -> list[Any]:
    from channelsq.worker.prefork import Outcome

    return [Outcome(Parcel(), 0.001) for _ in range(count)]


def test_one_long_wait_says_little_about_a_task() -> None:
    lane = lane_with([], {"a": 0.001})
    lane._learn("a", 10.0)
    assert lane._paces["a"] < 0.002
    for _ in range(50):
        lane._learn("a", 10.0)
    assert lane._paces["a"] > 1.0


def info_of(error: Exception) -> ExceptionInfo:
    try:
        raise error
    except type(error):
        return ExceptionInfo()


def test_who_was_not_to_be_ended_is_given_back(app: Celery) -> None:
    """A process that is ended for one message had others with it."""
    lane = lane_with(["a"] * 3, {"a": SLICE / 100}, limit=1)
    batch = list(lane._backlog)
    batch[0].acknowledged = True  # as terminate() leaves the one that is meant
    lane._send()
    worker: Any = lane._pool
    worker.failed(info_of(Terminated(15)))
    assert [request.given_back for request in batch] == [False, True, True]
    assert [request.failed for request in batch] == [False, False, False]


def test_a_lost_process_fails_all_that_it_had(app: Celery) -> None:
    lane = lane_with(["a"] * 2, {"a": SLICE / 100}, limit=1)
    batch = list(lane._backlog)
    lane._send()
    worker: Any = lane._pool
    worker.failed(info_of(WorkerLostError("killed")))
    assert [(request.failed, request.given_back) for request in batch] == [(True, False)] * 2
