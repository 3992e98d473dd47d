"""The properties of a consumer's task that are read once for many messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.backends.base import Backend
from celery.loaders.base import BaseLoader

from channelsq.worker.running import celery_tracer_internals, sentry_internals, task_receivers
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.isolation import bare


class TaskProfile:
    """The way in which a consumer runs.

    Celery's tracer sends two signals, formats the result and stores it, for every task.  That takes half of the time of
    a short consumer.  Without receivers and stored results a consumer does not need it.

    Args:
        task: a :class:`ConsumerTask` of any subclass.
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
        #: Attributes of ``task.request`` that are the same for every message.
        self.fields: dict[str, Any] = {}
        #: The callable that gets the message.
        self.call: Callable[..., Any] = task.run
        #: The sender of the signals about the consumer.
        self.sender = getattr(type(task), "consumer", None)
        #: The consumer's option ``rerun``.
        self.rerun: bool | None = getattr(task, "rerun", None)
        #: Whether the message is acknowledged after the consumer has run.
        self.late = True
        #: Whether Celery's pool runs the consumer, since threads cannot enforce its time limit.
        self.is_handed_over = False
        #: Whether Celery's tracer is needed only if the consumer raises.
        self.untraced = False
        self._tracer: Any = None
        self._plain = False
        #: Whether Sentry's Celery integration wraps the task, and continues the trace of a request.
        self.is_watched = False

    def look(self) -> None:
        """Read the properties that may change while the worker runs."""
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
            and task_receivers.are_ours_alone()
            and (not self.is_watched or sentry_internals.records_errors_only())
        )


def _callable(task: Any) -> Callable[..., Any]:
    """Return ``task.run``, or the consumer itself if ``task.run`` only calls it."""
    kind = type(task)
    run = vars(kind).get("run")
    # With bind=True, run is a method; with autoretry_for, Celery sets run on the instance.
    as_made = isinstance(run, staticmethod) and run is vars(kind).get("__wrapped__") and "run" not in vars(task)
    consumer: Callable[..., Any] = kind.consumer if as_made and issubclass(kind, ConsumerTask) else task.run
    return consumer


def _is_plain(task: Any) -> bool:
    """Return whether an untraced run of a consumer that succeeds has the same effects as Celery's tracer.

    Monitoring tools wrap Celery's tracer or the task; then an untraced run does not have the same effects.
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
