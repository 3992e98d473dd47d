"""A worker's way back to its broker: it tries twice a second, where Celery waits longer and longer, up to 30 seconds.

Sockets wait for the workers meanwhile, and their frames are held for a minute at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu

#: Seconds between two attempts.
EVERY = 0.5

#: How many attempts stand for one of Celery's, which come every 30 seconds in the end: the setting
#: ``broker_connection_max_retries`` shall not mean less patience.
ATTEMPTS = int(30 / EVERY)

ErrorHandler = Callable[..., Any]


class Connection(kombu.Connection):
    """A connection that is soon there again."""

    def ensure_connection(
        self, errback: ErrorHandler | None = None, max_retries: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """See Kombu's; without intervals of the caller's own it tries every :data:`EVERY` seconds.

        Args:
            errback: called after the first failure, the second, the fourth, the eighth and so on, as it logs them.
            max_retries: of 30 seconds each.
        """
        if args or "interval_start" in kwargs:
            return super().ensure_connection(errback, max_retries, *args, **kwargs)  # type: ignore[arg-type]
        intervals: dict[str, Any] = {"interval_start": EVERY, "interval_step": 0, "interval_max": EVERY}
        attempts: Any = max_retries and max_retries * ATTEMPTS  # its stub knows no None, which is for ever
        return super().ensure_connection(errback and _seldom(errback), attempts, **intervals, **kwargs)


def _seldom(errback: ErrorHandler) -> ErrorHandler:
    calls = 0

    def called(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls & (calls - 1) == 0:
            errback(*args, **kwargs)

    return called


def install(sender: Any, **kwargs: Any) -> None:
    """Receiver of ``worker_init``: have the worker connect so."""
    sender.app.amqp.Connection = Connection
    if "thread" in str(sender.pool_cls):
        _keep_prefetch_count(sender.app)


#: The setting with which a worker that has lost its connection takes fewer messages ahead for a while.
_REDUCTION = "worker_enable_prefetch_count_reduction"


def _keep_prefetch_count(app: Any) -> None:
    """Turn Celery's reduction off, unless the project's settings have it on.

    In a pool of threads it is the thread that ends a task that raises the count again: it speaks AMQP on the
    connection that the event loop reads at the same time.
    """
    if not any(_REDUCTION in mapping for mapping in app.conf.maps[:-1]):  # the last are Celery's own defaults
        app.conf[_REDUCTION] = False
