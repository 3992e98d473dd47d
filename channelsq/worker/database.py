"""Database connections: kept between messages as Django keeps them between requests.

Celery's Django fixup closes every connection before and after each task, which makes each message pay for a
new one.  For consumers ``close_old_connections`` is called instead, so that CONN_MAX_AGE and
CONN_HEALTH_CHECKS mean what they mean in views.  The app's ordinary tasks keep what Celery does for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import signals
from django.db import close_old_connections

from channelsq.worker.task import ConsumerTask


def keep_connections(sender: Any = None, **kwargs: Any) -> None:
    """Receiver of ``worker_init``: take consumers out of the care of the Django fixup."""
    for fixup in getattr(sender.app, "_fixups", ()):
        worker_fixup = getattr(fixup, "worker_fixup", None)
        if worker_fixup is not None:
            for signal, receiver in (
                (signals.task_prerun, worker_fixup.on_task_prerun),
                (signals.task_postrun, worker_fixup.on_task_postrun),
            ):
                signal.disconnect(receiver)
                signal.connect(_except_consumers(receiver), weak=False)
    signals.task_prerun.connect(_close_old, weak=False)
    signals.task_postrun.connect(_close_old, weak=False)


def _except_consumers(receiver: Callable[..., Any]) -> Callable[..., None]:
    def filtered(sender: Any = None, **kwargs: Any) -> None:
        if not isinstance(sender, ConsumerTask):
            receiver(sender=sender, **kwargs)

    return filtered


def _close_old(sender: Any = None, **kwargs: Any) -> None:
    if isinstance(sender, ConsumerTask):
        close_old_connections()
