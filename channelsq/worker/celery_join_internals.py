"""Support for ``result.get()`` in consumers and views, also in a worker with ``-P threads`` or ``-P solo``.

Celery refuses ``result.get()`` in every process whose pool runs tasks, as the waiting task may occupy the pool slot of
the other task.  A consumer occupies no slot of the pool, so it may wait, as a view may under another server.

This module uses a private part of Celery, a flag of the process that ``result.get()`` checks;
``tests/unit/worker/test_celery_join_internals.py`` pins it.
"""

from __future__ import annotations

from celery._state import _set_task_join_will_block, task_join_will_block  # type: ignore[attr-defined]

from channelsq.delivery.pending import held_here


class _WillBlock:
    """Celery's flag: true in tasks, false in consumers."""

    def __bool__(self) -> bool:
        return held_here.get() is None


def let_consumers_wait() -> None:
    """Allow ``result.get()`` in this process's consumers; tasks are still refused if the pool forbids it."""
    if task_join_will_block():
        _set_task_join_will_block(_WillBlock())
