"""Celery's inspect and control of a worker that reads layers by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import state as worker_state
from celery.worker.control import Panel
from celery.worker.request import Request
from kombu.message import Message as KombuMessage

from channelsq import route
from channelsq.worker.commands import control
from tests.support.fakes.workers import FakeControlledWorker
from tests.support.sources import app_with_source


def consumer(message: Any) -> None: ...


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeControlledWorker]:
    monkeypatch.setattr(Panel, "data", dict(Panel.data))
    control.install()
    control.install()  # safe to repeat
    with app_with_source([route("jobs", consumer)], prefix="site") as (app, _):
        yield FakeControlledWorker(app)


def info(identity: str) -> dict[str, Any]:
    return {"id": identity, "name": "consumer"}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("active", "active"),
        ("dump_active", "active"),
        ("reserved", "reserved"),
        ("dump_reserved", "reserved"),
        ("scheduled", "scheduled"),
        ("dump_schedule", "scheduled"),
    ],
)
def test_lists_have_what_every_process_has(world: FakeControlledWorker, command: str, what: str) -> None:
    assert world.call(command) == []
    world.sources.answers[what] = [[info("a"), info("b")], [], [info("c")]]
    assert [each["id"] for each in world.call(command)] == ["a", "b", "c"]


def test_messages_in_celerys_pool_are_shown_without_their_content(world: FakeControlledWorker) -> None:
    """As those with a time limit are; ordinary tasks keep their arguments."""
    content = {"text": "secret", "headers": [[b"cookie", b"secret"]]}
    body: Any = [["jobs", content], {"room": "tea"}, {}]
    requests = [
        Request(
            KombuMessage(
                body=body,
                headers={"id": identity, "task": name, "argsrepr": "(…)"},
                delivery_info={"exchange": "", "routing_key": "celery", "redelivered": False},
                content_type="application/x-python",
            ),
            app=world.app,
            task=world.app.tasks[name],
            decoded=True,
        )
        for identity, name in (("ours", f"{__name__}.consumer"), ("theirs", "celery.accumulate"))
    ]
    for request in requests:
        worker_state.task_accepted(request)
        worker_state.requests[request.id] = request
    try:
        active = {each["id"]: each for each in world.call("active")}
        queried = world.call("query_task", ["ours", "theirs"])
    finally:
        for request in requests:
            worker_state.task_ready(request)
            worker_state.requests.pop(request.id, None)
    for told in (active["ours"], queried["ours"][1]):
        assert (told["args"], told["kwargs"]) == ("('jobs', ['text', 'headers'])", "{'room': 'tea'}")
    for told in (active["theirs"], queried["theirs"][1]):
        assert told["args"] == ["jobs", content]


def test_stats_add_up(world: FakeControlledWorker) -> None:
    world.sources.answers["counts"] = [{"consumer": 3}, {"consumer": 4, "a.task": 1}]
    assert world.call("stats")["total"] == {"a.task": 3, "consumer": 7}
    world.sources.supervisor = None  # threads of the worker are in Celery's own count
    assert world.call("stats")["total"] == {"a.task": 2}


def test_query_task(world: FakeControlledWorker) -> None:
    world.sources.answers = {"active": [[info("a")], [info("b")]], "scheduled": [[{"eta": None, "request": info("c")}]]}
    assert world.call("query_task", ["a", "c", "d"]) == {"a": ("active", info("a")), "c": ("scheduled", info("c"))}
    assert world.call("query_task", "b") == {"b": ("active", info("b"))}


def test_revoke_is_told_to_every_process(world: FakeControlledWorker) -> None:
    try:
        assert "ok" in world.call("revoke", "not-here")
        assert world.sources.supervisor is not None
        ((kind, message),) = world.sources.supervisor.told
        assert kind == "revoked"
        assert "not-here" in message["revoke"]
    finally:
        worker_state.revoked.discard("not-here")


def test_terminate_says_that_threads_cannot_be_ended(world: FakeControlledWorker) -> None:
    world.sources.answers["active"] = [[info("running")]]
    try:
        assert "time_limit=" in world.call("revoke", ["running"], terminate=True)["error"]
        assert "ok" in world.call("revoke", ["another"], terminate=True)
    finally:
        worker_state.revoked.discard("running")
        worker_state.revoked.discard("another")


def test_a_rate_limit_is_told_for_consumers_alone(world: FakeControlledWorker) -> None:
    name = f"{__name__}.consumer"
    assert "ok" in world.call("rate_limit", name, "5/s")
    assert world.sources.supervisor is not None
    assert world.sources.supervisor.told == [(f"rate {name}", {"rate_limit": "5/s", "task": name})]
    assert "error" in world.call("rate_limit", name, "nonsense")
    world.call("rate_limit", "celery.ping", "5/s")
    assert {message["task"] for _, message in world.sources.supervisor.told} == {name}


def test_a_time_limit_is_told_for_consumers_alone(world: FakeControlledWorker) -> None:
    name = f"{__name__}.consumer"
    assert "ok" in world.call("time_limit", task_name=name, hard=2, soft=1)
    assert world.sources.supervisor is not None
    assert world.sources.supervisor.told == [(f"time limit {name}", {"time_limit": [2, 1], "task": name})]
    assert world.app.tasks[name].time_limit == 2
    assert "error" in world.call("time_limit", task_name="nobody.knows", hard=2)
    assert "ok" in world.call("time_limit", task_name="celery.backend_cleanup", hard=2)
    assert len(world.sources.supervisor.told) == 1


def test_a_time_limit_is_refused_where_the_pool_keeps_none(world: FakeControlledWorker) -> None:
    name = f"{__name__}.consumer"
    world.sources.pool_keeps_limits = False
    assert "enforces no time limits" in world.call("time_limit", task_name=name, hard=2)["error"]
    assert world.app.tasks[name].time_limit is None
    assert "ok" in world.call("time_limit", task_name=name)  # it is taken away


def test_events(world: FakeControlledWorker) -> None:
    world.call("enable_events")
    world.call("disable_events")
    assert world.sources.orders == [("events",)] * 2


def test_channels_are_added_and_cancelled_and_other_queues_are_celerys(world: FakeControlledWorker) -> None:
    assert world.call("add_consumer", "site:jobs") == {"ok": "add consumer site:jobs"}
    assert world.call("cancel_consumer", "site:jobs") == {"ok": "no longer consuming from site:jobs"}
    assert world.sources.orders == [("read", "default", "jobs"), ("cease", "default", "jobs")]
    assert "ok" in world.call("add_consumer", "reports")
    assert world.added == ["reports"]
    assert "ok" in world.call("cancel_consumer", "reports")
    assert world.added == []


def test_active_queues(world: FakeControlledWorker) -> None:
    assert [queue["name"] for queue in world.call("active_queues")] == ["site:jobs"]


def test_a_worker_without_sources_answers_as_celery_does(world: FakeControlledWorker) -> None:
    world.sources.answers["active"] = [[info("a")]]
    del world.controller.channelsq_sources
    assert world.call("active") == []
