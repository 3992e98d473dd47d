"""A worker's connection to its broker, which notices a lost broker soon and reconnects soon.

It tries twice a second to reconnect; Celery's pauses grow up to 30 seconds.  Meanwhile sockets wait for the workers,
and their frames are kept for at most a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu

from channelsq import conf
from channelsq.layers.kombu_broker import patience
from channelsq.layers.kombu_broker.kombu_redis_internals import instead_of

#: Seconds between two attempts.
EVERY = 0.5

#: The number of attempts for one of Celery's, which come at last every 30 seconds: the setting
#: ``broker_connection_max_retries`` must not mean less time.
ATTEMPTS = int(30 / EVERY)

#: The setting that lowers the prefetch of a worker for a while after it has lost its connection.
_REDUCTION = "worker_enable_prefetch_count_reduction"

ErrorHandler = Callable[..., Any]


class Connection(kombu.Connection):
    """A connection that is restored soon."""

    def get_transport_cls(self) -> Any:
        """Extend Kombu's method: a Redis that refuses for now does not end the worker, with any transport."""
        return instead_of(super().get_transport_cls())

    def info(self) -> dict[str, Any]:
        """Extend Kombu's method: leave out values that JSON cannot encode, for `inspect stats`."""
        info: dict[str, Any] = super().info()
        options = info.get("transport_options") or {}
        info["transport_options"] = {name: value for name, value in options.items() if not callable(value)}
        return info

    def ensure_connection(
        self, errback: ErrorHandler | None = None, max_retries: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Extend Kombu's method: without intervals of the caller's it tries every :data:`EVERY` seconds.

        Args:
            errback: called after the first failure, the second, the fourth, the eighth and so on, as it logs them.
            max_retries: each counts for 30 seconds.
        """
        if args or "interval_start" in kwargs:
            return super().ensure_connection(errback, max_retries, *args, **kwargs)  # type: ignore[arg-type]
        intervals: dict[str, Any] = {"interval_start": EVERY, "interval_step": 0, "interval_max": EVERY}
        attempts: Any = max_retries and max_retries * ATTEMPTS  # its stub lacks None, which means no limit
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
    """Set the worker's connection class and timeouts; a receiver of ``worker_init``.

    Settings of the project are kept.
    """
    app = sender.app
    app.amqp.Connection = Connection
    url = conf.celery_broker_url(app)
    defaults = patience.options_for(url)
    if defaults:
        app.conf.broker_transport_options = {**defaults, **(app.conf.broker_transport_options or {})}
    is_solo = "solo" in str(sender.pool_cls)  # it sends no heartbeats during a task, so they must be rare
    if patience.is_amqp(url) and not is_solo and not conf.is_chosen(app, "broker_heartbeat"):
        app.conf.broker_heartbeat = patience.HEARTBEAT
    if "thread" in str(sender.pool_cls) and not conf.is_chosen(app, _REDUCTION):
        # In a pool of threads the thread that ends a task raises the count again.  It would use AMQP on the connection
        # that the event loop reads at the same time.
        app.conf[_REDUCTION] = False
