"""Celery's module-level state of the worker of a process: running tasks, revoked tasks and shutdown.

Private parts of Celery; ``tests/unit/worker/running/test_celery_internals.py`` pins them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.worker import state

#: The ids of revoked tasks, and the numbers of tasks that this process has begun: of each name, and of all.
#: Celery itself changes these objects and never replaces them.
revoked, total_count, all_total_count = state.revoked, state.total_count, state.all_total_count


def running_requests() -> tuple[Any, ...]:
    """Return the requests of tasks that run in Celery's pool."""
    return tuple(state.active_requests)


def revoked_ids() -> list[str]:
    """Return the ids of revoked tasks."""
    return list(revoked)


def add_revoked(ids: Iterable[str]) -> None:
    """Record that tasks are revoked."""
    revoked.update(ids)


def tasks_begun() -> int:
    """Return the number of tasks that this process has begun."""
    return all_total_count[0]


def is_told_to_end_at_once() -> bool:
    """Return whether the worker was told to end by a cold shutdown."""
    return bool(state.should_terminate)


def tell_to_end() -> None:
    """Begin a warm shutdown of the worker that runs in this process."""
    state.should_stop = 0  # type: ignore[assignment]  # an exit code; the stubs declare only None


def forget_end() -> None:
    """Let this process start a worker again after :func:`tell_to_end`."""
    state.should_stop = None
