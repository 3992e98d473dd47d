"""A worker's connection to its broker: how soon the worker notices that it is gone, and how soon it is back.

It tries twice a second to be back, where Celery waits longer and longer, up to 30 seconds: sockets wait for the workers
meanwhile, and their frames are held for a minute at most.
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

#: How many attempts stand for one of Celery's, which come every 30 seconds in the end: the setting
#: ``broker_connection_max_retries`` shall not mean less patience.
ATTEMPTS = int(30 / EVERY)

#: The setting with which a worker that has lost its connection takes fewer messages ahead for a while.
_REDUCTION = "worker_enable_prefetch_count_reduction"

ErrorHandler = Callable[..., Any]


class Connection(kombu.Connection):
    """A connection that is soon there again."""

    def get_transport_cls(self) -> Any:
        """See Kombu's; a Redis that refuses for now ends no worker, whatever the transport."""
        return instead_of(super().get_transport_cls())

    def info(self) -> dict[str, Any]:
        """See Kombu's; without what no JSON can carry, as `inspect stats` shows it."""
        info: dict[str, Any] = super().info()
        options = info.get("transport_options") or {}
        info["transport_options"] = {name: value for name, value in options.items() if not callable(value)}
        return info

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
    """Receiver of ``worker_init``: have the worker connect so, and wait for its broker only so long.

    What the project has set stays.
    """
    app = sender.app
    app.amqp.Connection = Connection
    url = conf.celery_broker_url(app)
    defaults = patience.options_for(url)
    if defaults:
        app.conf.broker_transport_options = {**defaults, **(app.conf.broker_transport_options or {})}
    is_solo = "solo" in str(sender.pool_cls)  # which sends no heartbeats during a task, so that those must be rare
    if patience.is_amqp(url) and not is_solo and not conf.is_chosen(app, "broker_heartbeat"):
        app.conf.broker_heartbeat = patience.HEARTBEAT
    if "thread" in str(sender.pool_cls) and not conf.is_chosen(app, _REDUCTION):
        # In a pool of threads it is the thread that ends a task that raises the count again: it speaks AMQP on the
        # connection that the event loop reads at the same time.
        app.conf[_REDUCTION] = False
