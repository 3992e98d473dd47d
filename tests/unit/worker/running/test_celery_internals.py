"""Celery's privates that a worker needs: its runs, its end, and the surroundings of its tasks."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, Task, signals
from celery.app import trace
from celery.worker import state

from channelsq.transport.celery_end_internals import worker_is_ending
from channelsq.worker.running import (
    celery_fixup_internals,
    celery_state_internals,
    celery_tracer_internals,
)


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        yield app


class _Request:
    """A request of a task."""

    id, name = "1", "shop.task"


# -- state ------------------------------------------------------------------------------------------


def test_what_the_pool_runs_can_be_ended_by_a_cold_shutdown() -> None:
    request: Any = _Request()
    state.active_requests.add(request)
    try:
        assert request in celery_state_internals.running_requests()
    finally:
        state.active_requests.discard(request)
    assert request not in celery_state_internals.running_requests()


def test_a_revoked_task_is_revoked_in_channel_processes() -> None:
    celery_state_internals.add_revoked(["message-1"])
    try:
        assert "message-1" in state.revoked
        assert "message-1" in celery_state_internals.revoked_ids()
    finally:
        state.revoked.discard("message-1")


def test_a_channel_process_is_recycled_after_so_many_tasks() -> None:
    before = celery_state_internals.tasks_begun()
    request: Any = _Request()
    state.task_accepted(request)
    state.task_ready(request)
    assert celery_state_internals.tasks_begun() == before + 1


def test_celery_changes_its_counts_and_revoked_ids_in_place() -> None:
    """They are imported once: a copy would never see a revoked task, and nothing would see what it counts."""
    state.revoked.add("message-2")
    state.all_total_count[0] += 1
    state.total_count["shop.task"] += 1
    state.reset_state()
    assert celery_state_internals.revoked is state.revoked
    assert celery_state_internals.total_count is state.total_count
    assert celery_state_internals.all_total_count is state.all_total_count
    assert (len(state.revoked), state.all_total_count, dict(state.total_count)) == (0, [0], {})


@pytest.mark.parametrize("code", [0, 1])
def test_a_worker_that_is_told_to_end_does(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not worker_is_ending()
    monkeypatch.setattr(state, "should_stop", code)
    assert worker_is_ending()
    assert not celery_state_internals.is_told_to_end_at_once()
    monkeypatch.setattr(state, "should_stop", None)
    monkeypatch.setattr(state, "should_terminate", 1)
    assert worker_is_ending()
    assert celery_state_internals.is_told_to_end_at_once()


def test_a_worker_in_a_thread_can_be_told_to_end_and_another_one_be_started() -> None:
    celery_state_internals.tell_to_end()
    try:
        with pytest.raises(SystemExit):
            state.maybe_shutdown()
    finally:
        celery_state_internals.forget_end()
    state.maybe_shutdown()


# -- the Django fixup -------------------------------------------------------------------------------


def test_connections_of_consumers_are_kept_while_celery_closes_those_of_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        pairs = list(celery_fixup_internals.receivers_around_tasks(app))
    assert len(pairs) == 1, "Celery's Django fixup is not found"
    begun, ended = pairs[0]
    try:
        signals.task_prerun.connect(begun)
        signals.task_postrun.connect(ended)
        assert signals.task_prerun.disconnect(begun)
        assert signals.task_postrun.disconnect(ended)
    finally:
        signals.task_prerun.disconnect(begun)
        signals.task_postrun.disconnect(ended)


# -- the tracer -------------------------------------------------------------------------------------


def traced(app: Celery, **options: Any) -> tuple[Any, Any]:
    @app.task(shared=False, **options)
    def task() -> None: ...

    app.finalize()
    return task, trace.build_tracer(task.name, task, app=app)


def test_consumers_run_without_celerys_tracer_only_where_it_is_celerys_own(app: Celery) -> None:
    _, tracer = traced(app)
    assert celery_tracer_internals.is_of_celery(tracer)
    assert not celery_tracer_internals.is_of_celery(lambda *args: tracer(*args))  # as a tool has it


def test_consumers_run_without_celerys_tracer_only_if_nothing_waits_for_their_success(app: Celery) -> None:
    class Kept(Task):  # type: ignore[type-arg]
        def on_success(self, *args: Any) -> None: ...

    assert not celery_tracer_internals.has_hooks(traced(app)[0])
    assert celery_tracer_internals.has_hooks(traced(app, base=Kept, name="kept")[0])


def test_consumers_run_without_celerys_tracer_only_if_it_would_not_log_them() -> None:
    logger = logging.getLogger("celery.app.trace")
    before = logger.level
    try:
        logger.setLevel(logging.WARNING)
        assert not celery_tracer_internals.logs_success()
        logger.setLevel(logging.INFO)
        assert celery_tracer_internals.logs_success()
    finally:
        logger.setLevel(before)


def test_a_consumers_tracer_is_that_of_a_tool_that_has_replaced_celerys(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = traced(app)
    assert celery_tracer_internals.is_of_celery(celery_tracer_internals.tracer_of(task.name, task, app, "here"))
    monkeypatch.setattr(trace, "build_tracer", lambda name, *args, **kwargs: f"the tool's tracer of {name}")
    assert celery_tracer_internals.tracer_of(task.name, task, app, "here") == f"the tool's tracer of {task.name}"


def test_a_received_message_is_logged_as_celery_logs_a_task() -> None:
    assert celery_tracer_internals.LOG_RECEIVED % {"name": "shop.task", "id": "1"} == "Task shop.task[1] received"


def test_a_failure_outside_of_a_consumer_is_told_as_celery_tells_one(app: Celery) -> None:
    @app.task(shared=False)
    def fails() -> None:
        raise KeyError("tea")

    app.finalize()
    theirs: Any = trace.build_tracer(fails.name, fails, app=app)("1", [], {}, {})
    try:
        raise KeyError("tea")
    except KeyError as raised:
        error = raised
    ours = celery_tracer_internals.outcome("FAILURE", error, ExceptionInfo((KeyError, error, error.__traceback__)))
    assert type(ours) is type(theirs)
    assert type(ours.info) is type(theirs.info)
    assert (ours.info.state, repr(ours.info.retval)) == (theirs.info.state, repr(theirs.info.retval))
    assert type(ours.retval) is type(theirs.retval)


def test_tasks_find_their_app_in_every_thread_of_a_channel_process() -> None:
    code = """
import threading
from celery import Celery, current_app
from channelsq.worker.running.celery_tracer_internals import set_up_process
app = Celery("shop", set_as_current=False)
set_up_process(app, "here")
thread = threading.Thread(target=lambda: print(current_app.main, app.use_fast_trace_task))
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["shop", "True"], done.stderr
