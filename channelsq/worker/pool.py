"""The pool that a worker gets when nobody chose one, threads, and how a cold shutdown ends what runs in a pool.

Consumers mostly wait, for the database and for the broker, so threads serve more of them in less memory than
processes do.  ``-P``/``--pool``, ``-c``/``--concurrency`` and the settings ``worker_pool`` and
``worker_concurrency`` are respected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import state
from click.core import ParameterSource

from channelsq import conf
from channelsq.ending import end_worker
from channelsq.worker.task import ConsumerTask

#: Threads of a worker whose concurrency nobody chose.
DEFAULT_THREADS = 8


def choose(sender: Any = None, **kwargs: Any) -> None:
    """Receiver of ``worker_init``, which Celery sends just before it makes the pool."""
    if _chosen(sender, "pool", "worker_pool"):
        return
    sender.pool_cls = "threads"
    if not _chosen(sender, "concurrency", "worker_concurrency"):
        sender.concurrency = DEFAULT_THREADS


#: The methods of Celery's consumer that its signal handlers for a cold shutdown call; the second one until Celery 5.5.
_CANCELS = "cancel_active_requests", "cancel_all_unacked_requests"


def end_what_runs(consumer: Any) -> None:
    """Have a cold shutdown end the consumers that run in a pool without processes.

    Celery knows how to end processes alone.  In other pools it raises NotImplementedError, in a solo worker in the
    middle of the task, which thereby fails.

    Args:
        consumer: the worker's (``celery.worker.consumer.Consumer``).
    """
    ends = {"solo": _end_solo, "thread": _wait_for_threads}.get(type(consumer.pool).__module__.rpartition(".")[2])
    for name in _CANCELS:
        cancel = getattr(consumer, name, None)
        if ends is not None and cancel is not None:
            setattr(consumer, name, ends(cancel))


def _end_solo(cancel: Callable[[], None]) -> Callable[[], None]:
    def end() -> None:
        if any(isinstance(request.task, ConsumerTask) for request in tuple(state.active_requests)):
            end_worker(EX_FAILURE)
        cancel()

    return end


def _wait_for_threads(cancel: Callable[[], None]) -> Callable[[], None]:
    """Threads cannot be ended: the worker begins nothing more, and ends when those that run a task have done so."""
    told = False

    def end() -> None:
        nonlocal told
        if state.active_requests and not told:
            told = True
            raise WorkerShutdown(EX_FAILURE)

    return end


def _chosen(worker: Any, option: str, setting: str) -> bool:
    context = click.get_current_context(silent=True)
    while context is not None:
        source = context.get_parameter_source(option) if option in context.params else None
        if source is not None and source is not ParameterSource.DEFAULT:
            return True
        context = context.parent
    return conf.is_chosen(worker.app, setting)
