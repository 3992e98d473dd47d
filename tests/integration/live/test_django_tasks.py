"""Tasks of django.tasks run in real Celery workers: their results, and pages that follow them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live import Page, live_project
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways("threads")]


@pytest.fixture(scope="module")
def project(pool: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with live_project(
        redis_url,
        tmp_path_factory.mktemp("framework"),
        *("-P", pool, "-c", "1" if pool == "solo" else "4"),
        DJANGO_SETTINGS_MODULE="tests.project.framework.settings",
    ) as project:
        yield project


def result_of(project: Project, name: str, task: str) -> dict[str, Any]:
    """Read a result in another process."""
    code = f"""
import json
from tests.project.framework import tasks
result = tasks.{name}.get_result({task!r})
shown = {{
    "status": str(result.status), "args": result.args, "kwargs": result.kwargs, "attempts": result.attempts,
    "times": [result.enqueued_at, result.started_at, result.last_attempted_at, result.finished_at],
    "errors": [[each.exception_class_path, each.traceback] for each in result.errors],
    "value": result.return_value if str(result.status) == "SUCCESSFUL" else None,
    "class": result.errors[0].exception_class.__name__ if result.errors else "",
}}
shown["are_ordered"] = (times := [each for each in shown.pop("times") if each]) == sorted(times) and len(times)
print(json.dumps(shown))
"""
    answer = project.processes.manage("shell", "--no-imports", "-c", code, env=project.env)
    found: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
    return found


def test_a_page_sees_progress_and_result_of_a_task_that_is_started(project: Project, page: Page) -> None:
    task = page.start("count", 1000)
    end = page.end(task)
    assert (end["state"], end["result"]) == ("success", 1000)
    before_end = page.of(task)[-2]
    assert (before_end["done"], before_end["total"], before_end["text"]) == (1000, 1000, "rows")
    assert page.ticket(task)


def test_a_task_that_a_frame_enqueues_is_live_for_its_socket(project: Project, page: Page) -> None:
    task = page.start("count", 10, to="nobody")
    assert page.end(task)["result"] == 10
    assert page.others[-1]["number"] == 1
    page.start("count", 10, to="nobody")
    assert page.others[-1]["number"] == 2  # the channel session was saved


def test_a_coroutine_reports_and_lets_others_report(project: Project, pool: str, page: Page) -> None:
    task = page.start("count_later", 100)
    end = page.end(task)
    if pool == "gevent":  # which has one event loop for all its greenlets
        assert end["state"] == "failure"
        assert "is a coroutine function, which -P gevent" in project.worker_output
        return
    assert end["result"] == 100
    page.until(lambda: page.text(task, "called")[1], "the text of the called task")
    assert page.text(task, "called") == ("from the coroutine", True)
    assert page.text(task, "answer") == ("".join(f"row {row} " for row in range(1, 101)), True)
    project.wait_for_record("signals", f"count_later {task} finished SUCCESSFUL")


def test_the_signals_of_a_task_come_in_order(project: Project, page: Page) -> None:
    task = page.start("called", "text")
    page.end(task)
    project.wait_for_record("signals", f"called {task} finished SUCCESSFUL")
    seen = {line.split()[2]: line.split()[3] for line in project.recorded("signals") if task in line}
    assert seen == {"enqueued": "READY", "started": "RUNNING", "finished": "SUCCESSFUL"}


def test_a_result_is_read_by_any_process(project: Project, page: Page) -> None:
    task = page.start("attempt", [1, 2], "three")
    end = page.end(task)
    expected = {
        "id": task, "attempt": 1, "args": [[1, 2], "three"], "kwargs": {}, "status": "RUNNING", "enqueued": True,
        "workers": 1,
    }  # fmt: skip
    assert end["result"] == expected
    wait_until(lambda: result_of(project, "attempt", task)["status"] == "SUCCESSFUL", "the result")
    found = result_of(project, "attempt", task)
    assert found == {
        "status": "SUCCESSFUL", "args": [[1, 2], "three"], "kwargs": {}, "attempts": 1, "are_ordered": 4,
        "errors": [], "value": expected, "class": "",
    }  # fmt: skip


def test_a_failure_is_recorded_and_tells_pages_nothing_that_is_secret(project: Project, page: Page) -> None:
    task = page.start("fail", "password=hunter2")
    end = page.end(task)
    assert (end["state"], end["error"]) == ("failure", "The task failed.")
    assert "hunter2" not in str(page.payloads)
    wait_until(lambda: result_of(project, "fail", task)["status"] == "FAILED", "the failure")
    found = result_of(project, "fail", task)
    [[path, traceback]] = found["errors"]
    assert (path, found["class"]) == ("builtins.ValueError", "ValueError")
    assert "password=hunter2" in traceback
    assert page.end(page.start("fail", "", "Row 7 has no date."))["error"] == "Row 7 has no date."
    project.wait_for_record("signals", f"fail {task} finished FAILED")


def test_a_result_is_there_before_its_task_has_begun_and_while_it_runs(project: Project, page: Page) -> None:
    task = page.start("waits", "runs", to="nobody")
    project.wait_for_record("runs", "began")
    found = result_of(project, "waits", task)
    assert (found["status"], found["are_ordered"], found["attempts"]) == ("RUNNING", 3, 1)
    project.let_go("runs")
    page.end(task)


def test_a_task_sends_to_a_group(project: Project, page: Page) -> None:
    with Page(f"{project.ws_url}/live/") as other:
        other.send(join="tea")
        other.until(lambda: {"joined": "tea"} in other.others, "the answer")
        page.start("announce", "tea", "from the task", to="nobody")
        other.until(lambda: {"text": "from the task"} in other.others, "the message of the task")


def test_a_task_is_enqueued_after_the_commit(project: Project, page: Page) -> None:
    page.start("waits", "committed", to="commit")
    project.wait_for_record("committed", "began")
    project.let_go("committed")


def test_a_page_cancels_a_task(project: Project, page: Page) -> None:
    task = page.start("endless", "cancelled")
    project.wait_for_record("cancelled", "began")
    page.ask("cancel", page.ticket(task))
    assert page.end(task)["state"] == "revoked"
    project.wait_for_record("cancelled", "Cancelled")
    project.wait_for_record("signals", f"endless {task} finished FAILED")
