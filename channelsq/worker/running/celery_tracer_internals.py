"""Celery's tracer, which runs a task, sends its signals and keeps its result.

Private parts of Celery; ``tests/unit/worker/running/test_celery_internals.py`` pins them.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.app import trace

#: Hooks of a task's that the tracer calls also if it succeeds.
_HOOKS = ("before_start", "on_success", "after_return")


def outcome(state: str, error: BaseException | None, info: ExceptionInfo) -> Any:
    """Return what a tracer returns of a task that did not succeed.

    Args:
        state: such as ``"FAILURE"``.
        error: what it raised.
        info: the same, for Celery's pools.
    """
    return trace.trace_ok_t(info, trace.TraceInfo(state, error), 0.0, None)


def is_of_celery(tracer: Any) -> bool:
    """Return whether a tracer is Celery's own, and no tool's."""
    code = getattr(tracer, "__code__", None)
    return code is not None and code.co_filename == trace.__file__


def has_hooks(task: Any) -> bool:
    """Return whether a task has hooks of its own that a tracer calls if it succeeds."""
    return any(trace.task_has_custom(task, hook) for hook in _HOOKS)


def logs_success() -> bool:
    """Return whether a tracer logs that a task has succeeded."""
    return bool(trace.logger.isEnabledFor(logging.INFO))


def set_up_process(app: Celery, hostname: str) -> None:
    """Have tasks of this process run as those of a worker do, by a tracer for each."""
    trace.setup_worker_optimizations(app, hostname)
