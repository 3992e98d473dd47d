"""The return value of a ``TaskResult`` of ``django.tasks``, which only its own backends set.

A private part of Django; ``tests/unit/contrib/django_tasks/test_django_tasks_internals.py`` pins it.
"""

from __future__ import annotations

from typing import Any


def set_return_value(result: Any, value: Any) -> None:
    """Set what ``result.return_value`` returns once the task has succeeded.

    Args:
        result: a ``TaskResult``, which is frozen.
        value: the value of the task's function.
    """
    object.__setattr__(result, "_return_value", value)
