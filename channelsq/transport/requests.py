"""Celery's part in counting deaths: the message that killed the process of a prefork pool.

Celery then rejects the message (with ``reject_on_worker_lost``) like a message that a task rejects; only its request
knows the difference.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in its stubs
from celery import signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import request

from channelsq.transport.celery_end_internals import worker_is_ending
from channelsq.transport.dead_letters import count_death

#: Celery's own request class, which tasks have unless they name another.
DEFAULT = "celery.worker.request:Request"

#: The replacement of Celery's request class.
NAME = "channelsq.transport.requests:Request"


class Request(request.Request):
    """A request that tells the transport the cause of its process's death."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Extend Celery's method."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        is_lost = isinstance(error, (WorkerLostError, TimeLimitExceeded, SystemExit, KeyboardInterrupt))
        if is_lost and not worker_is_ending():  # otherwise the process may have been told to end with the worker
            count_death(self.message, f"{type(error).__name__}: {error}")
        return super().on_failure(exc_info, *args, **kwargs)


_apps: WeakSet[Any] = WeakSet()


def _remember(sender: Any, **kwargs: Any) -> None:
    _apps.add(sender.app)


def install(**kwargs: Any) -> None:
    """Install the request class in every task that has Celery's own.

    A receiver of ``worker_before_create_process``, which only a prefork pool sends, before strategies are made.
    """
    for app in _apps:
        for task in app.tasks.values():
            if task.Request == DEFAULT:
                task.Request = NAME


signals.worker_init.connect(_remember, dispatch_uid=f"{__name__}:remember")
signals.worker_before_create_process.connect(install, dispatch_uid=f"{__name__}:install")
