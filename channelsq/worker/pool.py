"""Cold shutdowns of workers whose pool has no processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE

from channelsq.delivery.ending import end_worker
from channelsq.worker.running.celery_state_internals import running_requests
from channelsq.worker.running.consumer_task import ConsumerTask

#: Methods of Celery's consumer that its signal handlers call in a cold shutdown; the second until Celery 5.5.
_CANCELS = "cancel_active_requests", "cancel_all_unacked_requests"


def end_what_runs(consumer: Any) -> None:
    """Make a cold shutdown end the consumers that run in a pool without processes.

    Celery can end only processes.  In other pools it raises NotImplementedError; in a solo worker it does so within the
    task, which fails then.

    Args:
        consumer: the worker's ``celery.worker.consumer.Consumer``.
    """
    ends = {"solo": _end_solo, "thread": _wait_for_threads}.get(type(consumer.pool).__module__.rpartition(".")[2])
    for name in _CANCELS:
        cancel = getattr(consumer, name, None)
        if ends is not None and cancel is not None:
            setattr(consumer, name, ends(cancel))


def _end_solo(cancel: Callable[[], None]) -> Callable[[], None]:
    def end() -> None:
        if any(isinstance(request.task, ConsumerTask) for request in running_requests()):
            end_worker(EX_FAILURE)
        cancel()

    return end


def _wait_for_threads(cancel: Callable[[], None]) -> Callable[[], None]:
    """Return a function that stops the worker from beginning tasks; threads cannot be killed, so it waits for them."""
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        if running_requests() and not has_ended:
            has_ended = True
            raise WorkerShutdown(EX_FAILURE)

    return end
