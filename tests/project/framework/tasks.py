"""Tasks of django.tasks."""

from __future__ import annotations

import asyncio
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.dispatch import receiver
from django.tasks import TaskContext, TaskResult, task
from django.tasks.signals import task_enqueued, task_finished, task_started

from channelsq import Group
from channelsq.live import PublicError, progress, stream
from tests.project.live import work_on
from tests.project.records import record, wait_for_go


@task
def count(rows: int) -> int:
    """Report many rows."""
    for row in range(1, rows + 1):
        progress(row, rows, "rows")
    return rows


@task
async def count_later(rows: int) -> int:
    """Report many rows and write text in a coroutine; ask the database."""
    with stream("answer") as out:
        for row in range(1, rows + 1):
            progress(row, rows, "rows")
            out.write(f"row {row} ")
            await asyncio.sleep(0)
    await sync_to_async(User.objects.count)()
    await called.aenqueue("from the coroutine")
    return rows


@task
def called(text: str) -> str:
    """Report for the caller."""
    with stream("called") as out:
        out.write(text)
    return text


@task(takes_context=True)
def attempt(context: TaskContext[Any, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return what the context says."""
    result = context.task_result
    return {
        "id": result.id, "attempt": context.attempt, "args": args, "kwargs": kwargs, "status": str(result.status),
        "enqueued": result.enqueued_at is not None, "workers": len(result.worker_ids),
    }  # fmt: skip


@task
def fail(secret: str, public: str = "") -> None:
    """Fail, with a message for the page or with none."""
    raise PublicError(public) if public else ValueError(secret)


@task
def announce(group: str, text: str) -> None:
    """Send to a group."""
    Group(group).send({"text": text})


@task
def waits(name: str) -> str:
    """Record the start, and wait for a file."""
    record(name, "began")
    wait_for_go(f"{name}.go", 60)
    return "went on"


@task
def endless(name: str) -> None:
    """Work until it is cancelled."""
    work_on(name)


def _record(event: str, task_result: TaskResult[Any, Any]) -> None:
    record("signals", f"{task_result.task.name} {task_result.id} {event} {task_result.status}")


@receiver(task_enqueued)
def on_enqueued(task_result: TaskResult[Any, Any], **kwargs: Any) -> None:
    """Record what was enqueued."""
    _record("enqueued", task_result)


@receiver(task_started)
def on_started(task_result: TaskResult[Any, Any], **kwargs: Any) -> None:
    """Record what was started."""
    _record("started", task_result)


@receiver(task_finished)
def on_finished(task_result: TaskResult[Any, Any], **kwargs: Any) -> None:
    """Record what was finished."""
    _record("finished", task_result)
