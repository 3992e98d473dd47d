"""Celery's module-level state of the worker of a process: running tasks, revoked tasks and shutdown.

Private parts of Celery; ``tests/unit/worker/running/test_celery_internals.py`` pins them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.worker import state


def running_requests() -> tuple[Any, ...]:
    """Return the requests of tasks that run in Celery's pool."""
    return tuple(state.active_requests)


def revoked_ids() -> list[str]:
    """Return the ids of revoked tasks."""
    return list(state.revoked)


def add_revoked(ids: Iterable[str]) -> None:
    """Record that tasks are revoked."""
    state.revoked.update(ids)


def tasks_begun() -> int:
    """Return the number of tasks that this process has begun."""
    return state.all_total_count[0]


def is_told_to_end() -> bool:
    """Return whether the worker was told to end, by a warm or a cold shutdown; both are exit codes, mostly 0."""
    return state.should_stop is not None or state.should_terminate is not None


def is_told_to_end_at_once() -> bool:
    """Return whether the worker was told to end by a cold shutdown."""
    return bool(state.should_terminate)


def tell_to_end() -> None:
    """Begin a warm shutdown of the worker that runs in this process."""
    state.should_stop = 0  # type: ignore[assignment]  # an exit code; the stubs declare only None


def forget_end() -> None:
    """Let this process start a worker again after :func:`tell_to_end`."""
    state.should_stop = None
