"""Celery's tracer, which runs a task, sends its signals and keeps its result.

Private parts of Celery; ``tests/unit/worker/running/test_celery_internals.py`` pins them.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.app import trace
from celery.app.trace import LOG_RECEIVED

__all__ = ["LOG_RECEIVED", "has_hooks", "is_of_celery", "logs_success", "outcome", "set_up_process", "tracer_of"]

#: Hooks of a task that the tracer also calls on success.
_HOOKS = ("before_start", "on_success", "after_return")


def outcome(state: str, error: BaseException | None, info: ExceptionInfo) -> Any:
    """Return a tracer's result for a task that did not succeed.

    Args:
        state: the state, for example ``"FAILURE"``.
        error: the exception of the task.
        info: the same exception, for Celery's pools.
    """
    return trace.trace_ok_t(info, trace.TraceInfo(state, error), 0.0, None)


def tracer_of(name: str, task: Any, app: Celery, hostname: str) -> Any:
    """Return a new tracer of a task; tools that watch tasks may have replaced Celery's ``build_tracer``."""
    return trace.build_tracer(name, task, app.loader, hostname, app=app)


def is_of_celery(tracer: Any) -> bool:
    """Return whether a tracer is Celery's own and not that of a tool."""
    code = getattr(tracer, "__code__", None)
    return code is not None and code.co_filename == trace.__file__


def has_hooks(task: Any) -> bool:
    """Return whether a task overrides hooks that a tracer calls on success."""
    return any(trace.task_has_custom(task, hook) for hook in _HOOKS)


def logs_success() -> bool:
    """Return whether a tracer logs the success of a task."""
    return bool(trace.logger.isEnabledFor(logging.INFO))


def set_up_process(app: Celery, hostname: str) -> None:
    """Set up this process to run tasks as a worker does, with a tracer for each."""
    trace.setup_worker_optimizations(app, hostname)
