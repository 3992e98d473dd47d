"""channelsq's receivers of ``task_prerun`` and ``task_postrun``: one of each, for all that has to happen around tasks.

Celery sends these signals for every task that its tracer runs.  A consumer needs no tracer while there are no
other receivers, see :mod:`channelsq.worker.running.task_profile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import signals

from channelsq.worker.running.consumer_task import ConsumerTask

Receiver = Callable[..., Any]

#: Called before and after consumers.
before_consumers: list[Receiver] = []
after_consumers: list[Receiver] = []

#: Called before and after tasks that are not consumers, with the arguments of the signals.
before_others: list[Receiver] = []
after_others: list[Receiver] = []


def connect() -> None:
    """Receive the signals in this process; repeated calls are harmless."""
    signals.task_prerun.connect(_before, weak=False)
    signals.task_postrun.connect(_after, weak=False)


def _before(sender: Any = None, **kwargs: Any) -> None:
    for receiver in before_consumers if isinstance(sender, ConsumerTask) else before_others:
        receiver(sender=sender, **kwargs)


def _after(sender: Any = None, **kwargs: Any) -> None:
    for receiver in after_consumers if isinstance(sender, ConsumerTask) else after_others:
        receiver(sender=sender, **kwargs)


def are_ours_alone() -> bool:
    """Return whether ``task_prerun`` and ``task_postrun`` have no other receivers."""
    before, after = signals.task_prerun.receivers, signals.task_postrun.receivers
    return all(each[1] is _before for each in before) and all(each[1] is _after for each in after)
