"""The facts about a task of ``django.tasks`` that travel with its Celery message, and stay in its stored result.

They are a stamp of Celery's: a header of the message that result backends keep beside the result.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.utils import timezone

from channelsq.contrib.django_tasks.framework import Task

#: The stamp's name.
STAMP = "channelsq_django_task"


def write_time(moment: datetime | None) -> str | None:
    """Return a time as text; None for none."""
    return None if moment is None else moment.isoformat()


def read_time(text: str | None) -> datetime | None:
    """Return the time of a text as Django's settings want it: aware with ``USE_TZ``, else in local time."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if settings.USE_TZ:
        return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
    return moment if timezone.is_naive(moment) else timezone.make_naive(moment)


class TaskStamp(NamedTuple):
    """The contents of the stamp."""

    backend: str
    queue_name: str
    priority: int
    run_after: str | None = None
    enqueued_at: str | None = None
    started_at: str | None = None
    last_attempted_at: str | None = None

    @classmethod
    def of(cls, task: Task[..., Any], enqueued_at: datetime | None = None) -> TaskStamp:
        """Return the stamp of a task."""
        return cls(task.backend, task.queue_name, task.priority, write_time(task.run_after), write_time(enqueued_at))

    def dump(self) -> dict[str, Any]:
        """Return the value of the header."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def task(self, task: Task[..., Any]) -> Task[..., Any]:
        """Return a task with the options that it was enqueued with."""
        run_after = read_time(self.run_after)
        if (task.backend, task.queue_name, task.priority, task.run_after) == (*self[:3], run_after):
            return task
        return dataclasses.replace(
            task, backend=self.backend, queue_name=self.queue_name, priority=self.priority, run_after=run_after
        )


def read_stamp(value: object) -> TaskStamp | None:
    """Return the contents of a stamp; None if it is not ours.

    Args:
        value: the value; Celery makes it a list of one for a task that runs in place.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    try:
        return TaskStamp(**value)
    except TypeError:
        return None
