"""Sentry's Celery integration without its cost for consumers that succeed.

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

#: Modules of the SDK; a program that has not imported them does not use the integration.
_SDK, _INTEGRATION = "sentry_sdk", "sentry_sdk.integrations.celery"


def unwrapped(function: Any) -> Any:
    """Return the function that Sentry's Celery integration has wrapped, or ``function`` itself."""
    integration = sys.modules.get(_INTEGRATION)
    code = getattr(function, "__code__", None)
    if integration is None or code is None or code.co_filename != integration.__file__:
        return function
    return getattr(function, "__wrapped__", function)


def records_errors_only() -> bool:
    """Return whether Sentry records no transaction for a consumer without a trace."""
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
    """Return Sentry's breadcrumbs of the running consumer."""
    sdk = sys.modules.get(_SDK)
    return [] if sdk is None else list(sdk.get_isolation_scope()._breadcrumbs)


def put_back(noted: list[Any]) -> None:
    """Restore breadcrumbs in the scope, which the integration clears at the start of a task."""
    if noted:
        sys.modules[_SDK].get_isolation_scope()._breadcrumbs.extend(noted)


def name_consumers() -> None:
    """Add the task to Sentry's events in consumers, as the integration does. Repeated calls are harmless."""
    sdk = sys.modules.get(_SDK)
    if sdk is None or _name_consumer in sdk.scope.global_event_processors:
        return
    sdk.scope.add_global_event_processor(_name_consumer)


def _name_consumer(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any] | None:
    """Add the running consumer's name and message to an event that the integration has not processed."""
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
