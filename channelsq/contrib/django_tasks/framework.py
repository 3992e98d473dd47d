"""The names of ``django.tasks``, and placeholders for them on Django 5.2, which lacks the framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.core.exceptions import ImproperlyConfigured

#: Whether Django has its own task framework.
HAS_TASKS = django.VERSION >= (6, 0)

#: The error of a backend on a Django without the framework.
NEEDED = "channelsq.contrib.django_tasks.CeleryBackend needs django.tasks, so Django 6.0 or later"

if TYPE_CHECKING or HAS_TASKS:
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:

    class BaseTaskBackend:
        """A placeholder that cannot be configured."""

        def __init__(self, alias: str, params: dict[str, Any]) -> None:
            raise ImproperlyConfigured(f"{NEEDED}; this is {django.get_version()}")

    Task = TaskContext = TaskError = TaskResult = TaskResultStatus = TaskResultDoesNotExist = None
    task_enqueued = task_finished = task_started = normalize_json = None

__all__ = [
    "HAS_TASKS",
    "NEEDED",
    "BaseTaskBackend",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "normalize_json",
    "task_enqueued",
    "task_finished",
    "task_started",
]
