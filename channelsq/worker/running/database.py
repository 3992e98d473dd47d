"""Database connections: kept between messages as Django keeps them between requests.

Celery's Django fixup closes every connection before and after each task, which makes each message pay for a
new one.  For consumers ``close_old_connections`` is called instead, so that CONN_MAX_AGE and
CONN_HEALTH_CHECKS mean what they mean in views.  The app's ordinary tasks keep what Celery does for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import signals
from django.db import close_old_connections, connections, reset_queries
from django.db.backends.signals import connection_created

from channelsq.worker.running.celery_fixup_internals import receivers_around_tasks
from channelsq.worker.running.consumer_task import ConsumerTask

logger = logging.getLogger("channelsq.worker")


class _Thread(threading.local):
    """What is known of a thread's connections."""

    #: Whether one of them may be open, or has logged queries: then :func:`begin` is due before a consumer, and
    #: :func:`close_old` after it.
    may_be_open = True

    #: Whether one of them has logged queries.
    has_queries = False


#: This thread's.
here = _Thread()


def close_old() -> None:
    """``close_old_connections()``, and find out whether one is open still, or has logged queries (``DEBUG``)."""
    try:
        close_old_connections()
    except Exception:  # as Celery has it of a signal's receiver: no reason not to run, or to acknowledge
        logger.exception("a database connection could not be closed", extra={"action": "connection_not_closed"})
    opened = logged = False
    for each in connections.all(initialized_only=True):
        opened = opened or each.connection is not None
        logged = logged or bool(each.queries_log)
    here.may_be_open, here.has_queries = opened or logged, logged


def begin() -> None:
    """:func:`close_old` before a consumer, whose ``connection.queries`` are to be its own as a request's are."""
    close_old()
    if here.has_queries:
        reset_queries()


def _opened(**kwargs: Any) -> None:
    here.may_be_open = True


connection_created.connect(_opened, dispatch_uid=__name__)


def keep_connections(sender: Any = None, **kwargs: Any) -> None:
    """Receiver of ``worker_init``: take consumers out of the care of the Django fixup."""
    begun: Callable[..., Any] | None = None
    ended: Callable[..., Any] | None = None
    for begun, ended in receivers_around_tasks(sender.app):
        signals.task_prerun.disconnect(begun)
        signals.task_postrun.disconnect(ended)
    for signal, receiver, tidy in (
        (signals.task_prerun, begun, _begin_traced),
        (signals.task_postrun, ended, close_old_connections),
    ):
        ours = _for_consumers(tidy, receiver)
        signal.connect(ours, weak=False)
        _ours.append(ours)


#: The receivers of task_prerun and task_postrun.
_ours: list[Callable[..., None]] = []


def are_ours_alone() -> bool:
    """Whether nobody else listens to ``task_prerun`` and ``task_postrun``."""
    before, after = signals.task_prerun.receivers, signals.task_postrun.receivers
    return len(before) == len(after) == 1 and before[0][1] in _ours and after[0][1] in _ours


def _begin_traced() -> None:
    """:func:`begin` on Celery's own way."""
    close_old_connections()
    reset_queries()


def _for_consumers(tidy: Callable[[], None], receiver: Callable[..., Any] | None) -> Callable[..., None]:
    """Return a receiver that calls ``tidy`` for consumers, and ``receiver`` for all other tasks."""

    def filtered(sender: Any = None, **kwargs: Any) -> None:
        if isinstance(sender, ConsumerTask):
            tidy()
        elif receiver is not None:
            receiver(sender=sender, **kwargs)

    return filtered
