"""Database connections of consumers, kept between messages as Django keeps them between requests.

Celery's Django fixup closes every connection before and after each task, so each message would need a new one.
For consumers ``close_old_connections`` is called instead, so that CONN_MAX_AGE and CONN_HEALTH_CHECKS work as in
views.  For ordinary tasks Celery's behaviour does not change.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import signals
from django.db import close_old_connections, connections, reset_queries
from django.db.backends.signals import connection_created

from channelsq.worker.running import task_receivers
from channelsq.worker.running.celery_fixup_internals import receivers_around_tasks

logger = logging.getLogger("channelsq.worker")


class _Thread(threading.local):
    """The state of a thread's connections."""

    #: Whether a connection may be open or has logged queries: then :func:`begin` must run before a consumer, and
    #: :func:`close_old` after it.
    may_be_open = True

    #: Whether a test owns the connections and reads all queries that they log.
    are_shared = False

    #: Whether a connection has logged queries.
    has_queries = False


#: The state of this thread.
here = _Thread()


def close_old() -> None:
    """Close old connections, and record whether others are open or have logged queries (``DEBUG``)."""
    try:
        close_old_connections()
    except Exception:  # like an error in a receiver of Celery's signal, it must not stop the consumer
        logger.exception("a database connection could not be closed", extra={"action": "connection_not_closed"})
    opened = logged = False
    for each in connections.all(initialized_only=True):
        opened = opened or each.connection is not None
        logged = logged or bool(each.queries_log)
    here.may_be_open, here.has_queries = opened or logged, logged


def begin() -> None:
    """Call :func:`close_old` before a consumer, and clear ``connection.queries`` as before a request."""
    close_old()
    if here.has_queries and not here.are_shared:
        reset_queries()


def _opened(**kwargs: Any) -> None:
    here.may_be_open = True


connection_created.connect(_opened, dispatch_uid=__name__)


def keep_connections(sender: Any = None, **kwargs: Any) -> None:
    """Exclude consumers from the Django fixup; a receiver of ``worker_init``."""
    for begun, ended in receivers_around_tasks(sender.app):
        signals.task_prerun.disconnect(begun)
        signals.task_postrun.disconnect(ended)
        task_receivers.before_others.append(begun)
        task_receivers.after_others.append(ended)
    look_after_consumers()


def look_after_consumers() -> None:
    """Close old connections around consumers that Celery's tracer runs; repeated calls are harmless."""
    if _before not in task_receivers.before_consumers:
        task_receivers.before_consumers.append(_before)
        task_receivers.after_consumers.append(_after)
    task_receivers.connect()


def _before(**kwargs: Any) -> None:
    close_old_connections()
    if not here.are_shared:
        reset_queries()


def _after(**kwargs: Any) -> None:
    close_old_connections()
