"""Consumers and views may wait for a task's result, in a worker with ``-P threads`` or ``-P solo``, too.

Celery refuses ``result.get()`` in a whole process whose pool runs tasks, as a task that waits there may hold the place
that the other task needs.  A consumer holds no place of the pool: a view that works under another server works here.

This module uses a private part of Celery, a flag of the process that ``result.get()`` looks at;
``tests/unit/worker/test_celery_join_internals.py`` pins it.
"""

from __future__ import annotations

from celery._state import _set_task_join_will_block, task_join_will_block  # type: ignore[attr-defined]

from channelsq.delivery.pending import held_here


class _WillBlock:
    """Celery's flag: true where tasks run, false where consumers do."""

    def __bool__(self) -> bool:
        return held_here.get() is None


def let_consumers_wait() -> None:
    """Have ``result.get()`` work in this process's consumers; if the pool forbids it, tasks are still refused."""
    if task_join_will_block():
        _set_task_join_will_block(_WillBlock())
