"""Sentry's Celery integration, without its price for consumers that succeed.

The integration wraps Celery's tracer and the task's ``__call__``.  For each task it then copies two scopes, makes a
transaction with a span and a Kombu connection, also if Sentry records no transactions: a short consumer takes nine
times as long.  Where Sentry records errors only, channelsq runs consumers without these wrappers.  If a consumer
raises, its exception passes through them afterwards, so that the event is the same; see
:mod:`channelsq.worker.running.untraced_run`.

This module uses private parts of ``sentry_sdk``; ``tests/unit/worker/running/test_sentry_internals.py`` pins them.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import current_task

#: The modules of the SDK that are looked at; a program that did not import them does not use the integration.
_SDK, _INTEGRATION = "sentry_sdk", "sentry_sdk.integrations.celery"


def unwrapped(function: Any) -> Any:
    """Return the function that Sentry's Celery integration has wrapped, or ``function`` if it is no such wrapper."""
    integration = sys.modules.get(_INTEGRATION)
    code = getattr(function, "__code__", None)
    if integration is None or code is None or code.co_filename != integration.__file__:
        return function
    return getattr(function, "__wrapped__", function)


def records_errors_only() -> bool:
    """Return whether Sentry makes no transaction of a consumer that nobody traces."""
    sdk = sys.modules.get(_SDK)
    if sdk is None:
        return True
    options = sdk.get_client().options
    return (
        not options.get("traces_sample_rate")
        and options.get("traces_sampler") is None
        and options.get("trace_lifecycle") != "stream"
        and (options.get("_experiments") or {}).get("trace_lifecycle") != "stream"
    )


def breadcrumbs() -> list[Any]:
    """Return what the running consumer did so far, as Sentry noted it."""
    sdk = sys.modules.get(_SDK)
    return [] if sdk is None else list(sdk.get_isolation_scope()._breadcrumbs)


def put_back(noted: list[Any]) -> None:
    """Put breadcrumbs into the scope, which the integration empties when it begins with a task."""
    if noted:
        sys.modules[_SDK].get_isolation_scope()._breadcrumbs.extend(noted)


def name_consumers() -> None:
    """Have Sentry's events from inside of consumers name the task, as the integration does. Safe to call again."""
    sdk = sys.modules.get(_SDK)
    if sdk is None or _name_consumer in sdk.scope.global_event_processors:
        return
    sdk.scope.add_global_event_processor(_name_consumer)


def _name_consumer(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any] | None:
    """Add the running consumer's name and message to an event that the integration did not see."""
    integration = sys.modules.get(_INTEGRATION)
    task: Any = current_task
    if integration is None or not task or not hasattr(task, "channelsq_tracer"):
        return event
    if "celery_task_id" in (event.get("tags") or {}):
        return event
    request = task.request
    named: dict[str, Any] | None = integration._make_event_processor(task, request.id, request.args, request.kwargs)(
        event, hint
    )
    return named
