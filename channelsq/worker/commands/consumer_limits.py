"""Warnings about consumers' time limits that a worker cannot enforce or hands to a queue that it does not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import Celery

from channelsq.worker.running.consumer_tasks import tasks_of

#: The remedy for limits that a pool does not enforce.
NEEDS_PREFORK = "this worker's pool enforces no time limits, as only processes can be killed: start it with -P prefork"


def problems(app: Celery, channels: Mapping[str, Iterable[str]], *, pool_keeps_limits: bool) -> Iterator[str]:
    """Yield the warnings for the operator.

    Args:
        app: the worker's Celery app, with its queues selected.
        channels: the channels that the worker reads, by the alias of their layer.
        pool_keeps_limits: whether Celery's pool can kill a task that takes too long.
    """
    limited = {
        str(task.name): task
        for alias, read in channels.items()
        for task in _consumers(app, alias, set(read))
        if task.time_limit or task.soft_time_limit
    }
    if not limited:
        return
    if not pool_keeps_limits:
        yield f"consumers with a time limit run without it ({_listed(limited)}); {NEEDS_PREFORK}"
        return
    unread: dict[str, list[str]] = {}
    for name in limited:
        queue = _queue_of(app, name)
        if queue not in app.amqp.queues.consume_from:
            unread.setdefault(queue, []).append(name)
    for queue, names in unread.items():
        yield (
            f"consumers with a time limit ({_listed(names)}) are handed to the queue {queue!r} of Celery's broker, "
            "which this worker does not read: another worker must read it, or their messages wait there"
        )


def _consumers(app: Celery, alias: str, channels: set[str]) -> Iterator[Any]:
    tasks = tasks_of(app)[alias]
    for route in tasks.layer.router.routes():
        if channels.intersection(route.channels):
            yield tasks.task_of(route.consumer)


def _queue_of(app: Celery, name: str) -> str:
    """Return the name of the queue that a call of a task goes to."""
    queue = app.amqp.router.route({}, name).get("queue")
    return str(getattr(queue, "name", queue) or app.conf.task_default_queue)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
