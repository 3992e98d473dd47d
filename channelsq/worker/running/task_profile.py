"""What is known of a consumer's task before a message comes, and looked at once for many of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.backends.base import Backend
from celery.loaders.base import BaseLoader

from channelsq.worker.running import celery_tracer_internals, database, sentry_internals
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.isolation import bare


class TaskProfile:
    """How a consumer is run.

    Celery's tracer sends two signals, describes the result and stores it, for every task.  Half of what a short
    consumer costs goes there.  Where nobody listens and nothing is kept, a consumer needs none of it.

    Args:
        task: a :class:`ConsumerTask`, whatever its own kind.
    """

    __slots__ = (
        "_plain",
        "_tracer",
        "call",
        "fields",
        "is_handed_over",
        "is_watched",
        "late",
        "name",
        "pid",
        "rerun",
        "sender",
        "task",
        "untraced",
    )

    def __init__(self, task: Any) -> None:
        self.task = task
        self.name: str = task.name
        self.pid = os.getpid()
        #: What ``task.request`` says of every message.
        self.fields: dict[str, Any] = {}
        #: What is called with the message.
        self.call: Callable[..., Any] = task.run
        #: Sender of the signals about it.
        self.sender = getattr(type(task), "consumer", None)
        #: The consumer's option of that name.
        self.rerun: bool | None = getattr(task, "rerun", None)
        #: Whether the message is acknowledged after it ran.
        self.late = True
        #: Whether Celery's pool runs it, since threads cannot keep its time limit.
        self.is_handed_over = False
        #: Whether Celery's tracer is not needed, unless the consumer raises.
        self.untraced = False
        self._tracer: Any = None
        self._plain = False
        #: Whether Sentry's Celery integration is around the task, and goes on with the trace of a request.
        self.is_watched = False

    def look(self) -> None:
        """Look at what may change while the worker runs."""
        task = self.task
        self.late = bool(task.acks_late)
        tracer = task.__trace__
        if tracer is not self._tracer:
            self._tracer = tracer
            self._plain = _is_plain(task)
            self.is_watched = sentry_internals.unwrapped(type(task).__call__) is not type(task).__call__
            self.call = _callable(task)
            if self.is_watched:
                sentry_internals.name_consumers()
        self.untraced = (
            self._plain
            and not signals.task_success.receivers
            and database.are_ours_alone()
            and (not self.is_watched or sentry_internals.records_errors_only())
        )


def _callable(task: Any) -> Callable[..., Any]:
    """``task.run``, or the consumer itself where that does nothing else."""
    kind = type(task)
    run = vars(kind).get("run")
    # A method is what bind=True makes of it; and what retries by itself is put into the instance.
    as_made = isinstance(run, staticmethod) and run is vars(kind).get("__wrapped__") and "run" not in vars(task)
    consumer: Callable[..., Any] = kind.consumer if as_made and issubclass(kind, ConsumerTask) else task.run
    return consumer


def _is_plain(task: Any) -> bool:
    """Whether Celery's tracer would do nothing for a consumer's success that is not done on the short way.

    Tools that watch Celery put something of their own around its tracer, or around the task: then it is not.
    """
    kind = type(task)
    guarded = bare(task.__trace__)
    tracer = sentry_internals.unwrapped(getattr(guarded, "tracer", guarded))  # see channelsq.worker.running.guard
    loader = type(task.app.loader)
    return (
        task.ignore_result
        and not task.track_started
        and sentry_internals.unwrapped(kind.__call__) is ConsumerTask.__call__
        and celery_tracer_internals.is_of_celery(tracer)
        and not celery_tracer_internals.has_hooks(task)
        and loader.on_task_init is BaseLoader.on_task_init
        and loader.on_process_cleanup is BaseLoader.on_process_cleanup
        and type(task.backend).process_cleanup is Backend.process_cleanup
        and not celery_tracer_internals.logs_success()
    )
