"""The receivers of Celery's signals around each live task in its worker."""

from __future__ import annotations

import logging
import weakref
from typing import Any

from celery import signals

from channelsq import conf
from channelsq.live.adoption import adopt
from channelsq.live.headers import HEADER, header_of, read_header
from channelsq.live.job_state import JobState
from channelsq.live.runs import LiveRun, current_run, dependents_of, inherit, shown_error
from channelsq.worker.running import task_receivers

logger = logging.getLogger("channelsq.live")

#: The requests of live tasks that this worker has received and not yet finished, by the tasks' ids.
_received: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def install() -> None:
    """Look for live tasks in this process, also for those that become live; repeated calls are harmless."""
    if conf.live_settings().from_requests:
        signals.before_task_publish.connect(adopt, weak=False)
    if _before not in task_receivers.before_others:
        task_receivers.before_others.append(_before)
        # Before the database connections are closed, and all else.
        task_receivers.after_others.insert(0, _after)
    signals.worker_init.connect(_on_worker, weak=False)


def _on_worker(**kwargs: Any) -> None:
    task_receivers.connect()
    signals.task_received.connect(_on_received, weak=False)
    signals.task_failure.connect(_on_failure, weak=False)
    signals.task_revoked.connect(_on_revoked, weak=False)


def _before(task: Any = None, **kwargs: Any) -> None:
    try:
        header = header_of(task.request)
        if header is not None:
            signals.before_task_publish.connect(inherit, weak=False)
            LiveRun(task, header).begin()
    except Exception:
        logger.exception("a live task begins unseen", extra={"action": "live_task_untold"})


def _after(task: Any = None, state: str = "", retval: Any = None, **kwargs: Any) -> None:
    try:
        run = current_run()
        if run is not None and run.request is task.request:
            run.finish(state, retval)
    except Exception:
        logger.exception("a live task ends unseen", extra={"action": "live_task_untold"})


# -- in a worker's main process, about tasks that end without their tracer


def _on_received(request: Any = None, **kwargs: Any) -> None:
    if HEADER in request.request_dict:
        _received[request.id] = request


def _on_failure(task_id: str = "", exception: Any = None, **kwargs: Any) -> None:
    """Tell of a task whose process was lost, or was ended at its time limit; the tracer tells of all others."""
    request = _received.get(task_id)
    if request is None or current_run() is not None:
        return
    context = request.request_dict
    header = read_header(context.get(HEADER), task_id)
    if header is None:
        return
    dependents, is_last = dependents_of(_Follows(request), header.job.id)
    is_last = is_last or task_id == header.job.id
    header.job.try_update(
        lambda state: state.fail(header.part, dependents, is_last=is_last, error=shown_error(exception))
    )


class _Follows:
    """The tasks that follow the one of a worker's request.

    Args:
        request: the request.
    """

    def __init__(self, request: Any) -> None:
        _, _, embed = request.message.payload
        self.chain = embed.get("chain")
        self.chord = embed.get("chord")


def _on_revoked(request: Any = None, **kwargs: Any) -> None:
    header = header_of(request) or read_header(getattr(request, "request_dict", {}).get(HEADER))
    if header is not None and header.part is not None:
        header.job.try_update(JobState.revoke)
