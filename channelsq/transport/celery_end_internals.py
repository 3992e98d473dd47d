"""Celery's record of whether the worker of this process was told to end.

A private part of Celery; ``tests/unit/worker/running/test_celery_internals.py`` pins it.
"""

from __future__ import annotations

from celery.worker import state


def worker_is_ending() -> bool:
    """Return whether the worker was told to end, by a warm or a cold shutdown."""
    # Exit codes, mostly 0.  As in Celery's maybe_shutdown(), None and False mean that the worker goes on.
    warm, cold = state.should_stop, state.should_terminate
    return (warm is not None and warm is not False) or (cold is not None and cold is not False)
