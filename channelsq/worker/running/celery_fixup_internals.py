"""The receivers that Celery's Django fixup runs around every task.

A private part of Celery; ``tests/unit/worker/running/test_celery_internals.py`` pins it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def receivers_around_tasks(app: Any) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    """Yield the receivers of ``task_prerun`` and ``task_postrun`` of the app's fixups, as pairs."""
    for fixup in getattr(app, "_fixups", ()):
        worker_fixup = getattr(fixup, "worker_fixup", None)
        if worker_fixup is not None:
            yield worker_fixup.on_task_prerun, worker_fixup.on_task_postrun
