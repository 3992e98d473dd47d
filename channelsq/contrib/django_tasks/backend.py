"""The backend of ``django.tasks`` that sends tasks to the project's Celery workers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from celery import Celery, states
from celery.app.task import Context
from celery.backends.base import BaseKeyValueStoreBackend
from celery.canvas import Signature
from celery.result import AsyncResult
from django.core import checks
from django.utils import timezone

from channelsq import conf
from channelsq.contrib.django_tasks.celery_runs import path_of, register, task_of
from channelsq.contrib.django_tasks.django_tasks_internals import set_return_value
from channelsq.contrib.django_tasks.framework import (
    BaseTaskBackend,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from channelsq.contrib.django_tasks.stamps import STAMP, TaskStamp, read_stamp, read_time

P = ParamSpec("P")
R = TypeVar("R")

#: The queue of ``django.tasks`` that is Celery's default one.
_DEFAULT_QUEUE = "default"

#: The most urgent and the least urgent priority of ``django.tasks`` are at this distance from the default one.
_MOST = 100

#: Schemes of brokers where the priority 0 is the most urgent, as with Redis; elsewhere it is the least.
_ZERO_FIRST = ("redis", "rediss", "sentinel", "ipc")

#: The range of priorities on these, and on RabbitMQ unless ``CELERY_TASK_QUEUE_MAX_PRIORITY`` is set.
_HIGHEST = 9


class CeleryBackend(BaseTaskBackend):
    """A backend of ``django.tasks`` whose tasks run in the project's Celery workers.

    Each task is a Celery task, named as the path of its function.  Results can be read if the Celery app has a result
    backend on Redis, Memcached or files, and ``CELERY_RESULT_EXTENDED = True``.

    Args:
        alias: the key in ``TASKS``.
        params: the value in ``TASKS``.

    Raises:
        ImproperlyConfigured: this Django has no ``django.tasks``.
    """

    supports_defer = True
    supports_async_task = True
    supports_priority = True

    @property
    def supports_get_result(self) -> bool:  # type: ignore[override]  # Celery's app is not known yet at imports
        """Return whether results can be read, in every process."""
        app = conf.celery_app()
        return (
            isinstance(app.backend, BaseKeyValueStoreBackend)
            and bool(app.conf.result_extended)
            and not app.conf.task_ignore_result
        )

    def validate_task(self, task: Task[..., Any]) -> None:
        """Check a task, and let the Celery apps of this process run it.

        Raises:
            InvalidTask: Django's rules do not allow the task.
        """
        super().validate_task(task)
        register(task)

    def enqueue(self, task: Task[P, R], args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult[P, R]:
        """Send a task to Celery's broker, at once; see ``Task.enqueue()``.

        Raises:
            InvalidTask: Django's rules do not allow the task.
            TypeError: an argument cannot be written as JSON.
            kombu.exceptions.OperationalError: Celery's broker does not answer.
        """
        self.validate_task(task)
        return self.send(task, args, kwargs, str(uuid.uuid4()), self.options_of(task))

    def signature(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> EnqueueSignature:
        """Return what ``channelsq.live.start()`` starts for a task: a signature that is enqueued when it is applied."""
        self.validate_task(task)
        return EnqueueSignature(self, task, args, kwargs)

    def send(
        self, task: Task[P, R], args: Sequence[Any], kwargs: Mapping[str, Any], task_id: str, options: Any
    ) -> TaskResult[P, R]:
        """Send a task to Celery's broker.

        Args:
            task: the task.
            args, kwargs: its function's arguments.
            task_id: the id of the task, and of its result.
            options: for Celery's ``apply_async``.
        """
        now = timezone.now()
        result = TaskResult(
            task=task,
            id=task_id,
            status=TaskResultStatus.READY,
            enqueued_at=now,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        app = conf.celery_app()
        stamps = {STAMP: TaskStamp.of(task, now).dump()}
        is_kept = self.supports_get_result and not app.conf.task_always_eager
        if is_kept:  # before the worker can have begun
            request = Context(
                {
                    "id": task_id, "task": task.module_path, "args": result.args, "kwargs": result.kwargs,
                    "stamps": stamps, "stamped_headers": [STAMP],
                }
            )  # fmt: skip
            app.backend.store_result(task_id, None, states.PENDING, request=request)
        try:
            celery_task: Any = app.tasks[task.module_path]
            celery_task.apply_async(
                tuple(result.args), result.kwargs, task_id=task_id, stamped_headers=[STAMP], **stamps, **options
            )
        except Exception:
            if is_kept:
                app.backend.forget(task_id)
            raise
        task_enqueued.send(sender=type(self), task_result=result)
        return result

    def options_of(self, task: Task[..., Any]) -> dict[str, Any]:
        """Return the options for Celery's ``apply_async`` that a task's own options mean."""
        options: dict[str, Any] = {}
        if task.queue_name != _DEFAULT_QUEUE:
            options["queue"] = task.queue_name
        if task.run_after is not None:
            moment = task.run_after
            options["eta"] = timezone.make_aware(moment) if timezone.is_naive(moment) else moment
        if task.priority:
            options["priority"] = celery_priority(task.priority, conf.celery_app())
        return options

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """Return the result of a task, or its state so far.

        Raises:
            TaskResultDoesNotExist: Celery's result backend has none, or none any more.
            NotImplementedError: results are not kept, see ``supports_get_result``.
        """
        if not self.supports_get_result:
            raise NotImplementedError(
                "results of django.tasks need CELERY_RESULT_BACKEND on Redis, Memcached or files, "
                "CELERY_RESULT_EXTENDED = True, and CELERY_TASK_IGNORE_RESULT = False"
            )
        meta = conf.celery_app().backend.get_task_meta(result_id)
        task = task_of(meta.get("name"))
        if task is None:
            raise TaskResultDoesNotExist(result_id)
        stamp = read_stamp(meta.get(STAMP)) or TaskStamp.of(task)
        status = TaskResultStatus[_STATES.get(meta["status"], "READY")]
        worker = meta.get("worker")
        result = TaskResult(
            task=stamp.task(task),
            id=result_id,
            status=status,
            enqueued_at=read_time(stamp.enqueued_at),
            started_at=read_time(stamp.started_at),
            finished_at=read_time(meta.get("date_done")),
            last_attempted_at=read_time(stamp.last_attempted_at),
            args=list(meta.get("args") or ()),
            kwargs=dict(meta.get("kwargs") or {}),
            backend=self.alias,
            errors=[_error_of(meta)] if status == TaskResultStatus.FAILED else [],
            worker_ids=[worker] * ((meta.get("retries") or 0) + 1) if worker else [],
        )
        if status == TaskResultStatus.SUCCESSFUL:
            set_return_value(result, meta["result"])
        return result

    def check(self, **kwargs: Any) -> list[Any]:
        """Return the warning of a result backend whose results cannot be read."""
        app = conf.celery_app()
        if not app.conf.result_backend or self.supports_get_result:
            return []
        return [
            checks.Warning(
                f"TASKS[{self.alias!r}] cannot read results, although Celery has a result backend.",
                hint="Set CELERY_RESULT_EXTENDED = True, with CELERY_RESULT_BACKEND on Redis, Memcached or files, and "
                "without CELERY_TASK_IGNORE_RESULT.",
                id="channelsq.W012",
            )
        ]


#: The names of Django's states of a task, by Celery's; every other one is READY.
_STATES = {
    states.STARTED: "RUNNING",
    states.SUCCESS: "SUCCESSFUL",
    states.FAILURE: "FAILED",
    states.REVOKED: "FAILED",
    states.REJECTED: "FAILED",
}


def _error_of(meta: Mapping[str, Any]) -> TaskError:
    error = meta.get("result")
    path = path_of(type(error)) if isinstance(error, BaseException) else path_of(Exception)
    return TaskError(exception_class_path=path, traceback=meta.get("traceback") or "")


class EnqueueSignature(Signature[Any]):
    """A Celery signature of a task of ``django.tasks``, which the task's backend sends.

    Args:
        backend: the task's.
        task: the task.
        args, kwargs: the arguments of its function.
    """

    def __init__(
        self, backend: CeleryBackend, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        super().__init__(
            task.module_path, tuple(args), dict(kwargs), options=backend.options_of(task), app=conf.celery_app()
        )
        self.django_task, self.django_backend = task, backend

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Enqueue the task; options of the call precede the task's own."""
        merged = {**self["options"], **options}
        task_id = merged.pop("task_id", None) or str(uuid.uuid4())
        self.django_backend.send(self.django_task, self["args"], self["kwargs"], task_id, merged)
        return conf.celery_app().AsyncResult(task_id)


def celery_priority(priority: int, app: Celery) -> int:
    """Return Celery's priority for one of ``django.tasks``, where the default of both is the same.

    Args:
        priority: -100 to 100; more is more urgent.
        app: the Celery app: on Redis its priority 0 is the most urgent, on RabbitMQ the least.
    """
    is_zero_first = conf.celery_broker_url(app).partition("://")[0].partition("+")[0].split("-")[0] in _ZERO_FIRST
    highest = _HIGHEST if is_zero_first else app.conf.task_queue_max_priority or _HIGHEST
    default = app.conf.task_default_priority or 0
    end = 0 if (priority > 0) is is_zero_first else highest
    return round(default + (end - default) * abs(priority) / _MOST)
