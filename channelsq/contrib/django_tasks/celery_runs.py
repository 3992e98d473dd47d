"""Tasks of ``django.tasks`` as Celery tasks: their registration, and their run in a worker."""

from __future__ import annotations

import dataclasses
import logging
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import Any

from celery import shared_task
from celery.exceptions import Retry
from django.utils import timezone

from channelsq.contrib.django_tasks.django_tasks_internals import set_return_value
from channelsq.contrib.django_tasks.framework import (
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from channelsq.contrib.django_tasks.stamps import STAMP, TaskStamp, read_stamp, read_time, write_time
from channelsq.worker.running import greenlets

logger = logging.getLogger("channelsq.django_tasks")

#: The tasks by the names of their Celery tasks, as they were declared.
_tasks: dict[str, Task[..., Any]] = {}


def register(task: Task[..., Any]) -> None:
    """Let every Celery app of this process run a task, under the path of its function; repeated calls are harmless."""
    name = task.module_path
    if name in _tasks:
        return
    _tasks[name] = task

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _run(_tasks[name], self, args, kwargs)

    run.__name__, run.__qualname__ = task.func.__name__, task.func.__qualname__
    run.__module__, run.__doc__ = task.func.__module__, task.func.__doc__
    shared_task(bind=True, name=name, serializer="json")(run)


def task_of(name: object) -> Task[..., Any] | None:
    """Return the task that a Celery task runs; None if there is none of this name."""
    return _tasks.get(name) if isinstance(name, str) else None


def _run(task: Task[..., Any], celery_task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task as its Celery task, send Django's signals, and return a value for JSON."""
    request = celery_task.request
    stamp = _begin(request, TaskStamp.of(task))
    task = stamp.task(task)
    backend = task.get_backend()
    result = TaskResult(
        task=task,
        id=request.id,
        status=TaskResultStatus.RUNNING,
        enqueued_at=read_time(stamp.enqueued_at),
        started_at=read_time(stamp.started_at),
        last_attempted_at=read_time(stamp.last_attempted_at),
        finished_at=None,
        args=list(args),
        kwargs=kwargs,
        backend=backend.alias,
        errors=[],
        worker_ids=[str(request.hostname)] * (request.retries + 1),
    )
    if backend.supports_get_result and not request.is_eager:
        try:
            celery_task.update_state(state="STARTED")
        except Exception:
            logger.exception("the result backend is not told of %s's start", task.name, extra={"action": "task_untold"})
    task_started.send(sender=type(backend), task_result=result)
    try:
        value = normalize_json(_call(task, result, args, kwargs))
    except Retry:
        raise
    except Exception as error:
        errors = [TaskError(exception_class_path=path_of(type(error)), traceback="".join(format_exception(error)))]
        _finish(backend, result, status=TaskResultStatus.FAILED, errors=errors)
        raise
    _finish(backend, result, value, status=TaskResultStatus.SUCCESSFUL)
    return value


def _call(task: Task[..., Any], result: TaskResult[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if iscoroutinefunction(task.func) and greenlets.are_threads():
        # Event loops are a thread's: they would forbid the other greenlets to use the database.
        raise RuntimeError(f"{task.module_path} is a coroutine function, which -P gevent and -P eventlet cannot run")
    if task.takes_context:
        return task.call(TaskContext(task_result=result), *args, **kwargs)
    return task.call(*args, **kwargs)


def _begin(request: Any, default: TaskStamp) -> TaskStamp:
    """Return the stamp of a run with the time of its start, and keep it for the stored result.

    Args:
        request: the Celery task's.
        default: the stamp of a task that something else than the backend has sent, such as Celery's beat.
    """
    stamps = request.stamps or {}
    stamp = read_stamp(stamps.get(STAMP)) or default
    now = write_time(timezone.now())
    stamp = stamp._replace(started_at=stamp.started_at or now, last_attempted_at=now)
    request.stamps = {**stamps, STAMP: stamp.dump()}
    request.stamped_headers = [*(each for each in request.stamped_headers or () if each != STAMP), STAMP]
    return stamp


def _finish(backend: Any, result: TaskResult[..., Any], value: Any = None, **changes: Any) -> None:
    finished = dataclasses.replace(result, finished_at=timezone.now(), **changes)
    set_return_value(finished, value)
    task_finished.send(sender=type(backend), task_result=finished)


def path_of(kind: type[BaseException]) -> str:
    """Return the dotted path of an exception's class."""
    return f"{kind.__module__}.{kind.__qualname__}"
