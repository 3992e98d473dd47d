"""``@consumer``: Celery's task options on a consumer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from celery import Task
from celery.utils.time import rate

__all__ = ["consumer"]

C = TypeVar("C", bound=Callable[..., Any])

#: The attribute of a consumer in which :func:`consumer` stores its options.
ATTRIBUTE = "celery_options"

#: Options of ``app.task()`` that are not attributes of ``celery.Task``.
_MORE = frozenset(
    {"at_most_once", "autoretry_for", "bind", "dont_autoretry_for", "name", "queue", "rerun",
     "retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs"}
)  # fmt: skip

#: Methods of ``celery.Task`` that an option may replace.
_HANDLERS = frozenset({"after_return", "before_start", "on_failure", "on_retry", "on_success"})


def _is_option(name: str) -> bool:
    if name in _HANDLERS:
        return True
    return not name.startswith("_") and hasattr(Task, name) and not inspect.isroutine(getattr(Task, name))


def _check_rate_limit(limit: Any) -> None:
    """Raise ValueError if Celery cannot read a rate limit: the worker would fail at its start, naming no consumer."""
    try:
        rate(limit)
    except (ValueError, KeyError):
        raise ValueError(
            f"@consumer got rate_limit={limit!r}; write a number of messages a second, minute or hour: "
            "'10/s', '100/m' or '1000/h'"
        ) from None


def consumer(**options: Any) -> Callable[[C], C]:
    """Set Celery's task options on a consumer function or class.

    ::

        @consumer(autoretry_for=(OperationalError,), rate_limit="100/s", time_limit=5)
        def ws_receive(message): ...

    Args:
        options: the options of ``app.task()`` (https://docs.celeryq.dev, "Tasks", "List of Options"), except
            ``queue`` and ``name``, which the routing sets.  By default a message is acknowledged after its consumer
            ran (``acks_late=True``), so that a message outlives a killed worker; ``at_most_once=True`` acknowledges
            before.  ``rerun=False`` writes a mark before the consumer runs: if its worker dies, it does not run again,
            and an HTTP client gets status 502.  ``rerun=True`` always runs it again.  Without it requests on
            ``http.request`` run again if their method is one of ``CHANNEL_RERUN_METHODS``, and all other messages do.
            ``bind=True`` calls the consumer with the task as its first argument.

    Raises:
        TypeError: there is no such option.
        ValueError: Celery cannot read the rate limit.
    """
    for option in options:
        if option in ("queue", "name"):
            raise TypeError(f"@consumer takes no {option!r}: a consumer's queue and name come from the routing")
        if option not in _MORE and not _is_option(option):
            raise TypeError(f"@consumer got {option!r}, which is not an option of a Celery task")
    if "rerun" in options and not isinstance(options["rerun"], bool):
        raise TypeError(f"@consumer takes rerun=True or rerun=False, not {options['rerun']!r}")
    if "at_most_once" in options and "acks_late" in options:
        raise TypeError("@consumer takes at_most_once or acks_late, not both")
    if "rate_limit" in options:
        _check_rate_limit(options["rate_limit"])

    def decorate(function: C) -> C:
        setattr(function, ATTRIBUTE, {**getattr(function, ATTRIBUTE, {}), **options})
        return function

    return decorate
