"""Celery's part in counting deaths: which message killed the process of a prefork pool that worked on it.

Celery then rejects the message (with ``reject_on_worker_lost``) as it does one that a task does not want, and only
its request knows the difference.
"""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in its stubs
from celery import signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import request

from channelsq.transport.dead import count_death

#: Celery's own, which tasks have unless they name another.
DEFAULT = "celery.worker.request:Request"


class Request(request.Request):
    """A request that tells the transport what its process died of."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """See Celery's."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, (WorkerLostError, TimeLimitExceeded, SystemExit, KeyboardInterrupt)):
            count_death(self.message, f"{type(error).__name__}: {error}")
        return super().on_failure(exc_info, *args, **kwargs)


def install(sender: Any, **kwargs: Any) -> None:
    """Receiver of ``worker_init``: give it to every task that has Celery's own."""
    for task in sender.app.tasks.values():
        if task.Request == DEFAULT:
            task.Request = f"{__name__}:{Request.__name__}"


signals.worker_init.connect(install, dispatch_uid=__name__)
