"""Isolation of messages: changes of context variables end with the message.

Django keeps the language, the time zone, the URL configuration and the script prefix in context variables, Python its
decimal context, and tools their spans and scopes.  A worker's thread or process handles the messages of all visitors,
so each message gets its own context.  The context begins empty: it does not contain variables of the thread's context,
and does not change them.

Database connections belong to the thread (asgiref's thread-critical ``Local``) and are kept.  Django's caches would be
created and connected again in each context, so they are put into the thread's base context; each message's context is
a copy of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from django.core.cache import caches

from channelsq.delivery import trace_context


class _Thread(threading.local):
    """The base context of a thread, which is copied for each message."""

    base: Context | None = None


_here = _Thread()


def fresh() -> Context:
    """Return a new context for one message."""
    base = _here.base
    if base is None:
        base = _here.base = Context()
        base.run(_keep_connections)
    return base.copy()


def _keep_connections() -> None:
    """Create the backends of Django's connection handlers; they connect at their first use."""
    handlers: list[Any] = [caches]
    with contextlib.suppress(ImportError):  # before Django 6.0
        from django.tasks import task_backends

        handlers.append(task_backends)
    for handler in handlers:
        with contextlib.suppress(Exception):  # unusable settings; the consumer that uses the backend gets the error
            for alias in handler:
                with contextlib.suppress(Exception):
                    handler[alias]


class IsolatedTracer:
    """Celery's tracer of a task, with a new context for each message.

    The tracer sends the signals around a task, so their receivers share the context with the consumer.

    Args:
        tracer: a tracer of Celery's ``build_tracer``.
    """

    __slots__ = ("tracer",)

    def __init__(self, tracer: Callable[..., Any]) -> None:
        self.tracer = tracer

    def __call__(self, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        """Trace the task."""
        if isinstance(request, dict):
            trace_context.restore(request, args)
        return fresh().run(self.tracer, uuid, args, kwargs, request)


def bare(tracer: Any) -> Any:
    """Return the wrapped tracer, for callers that are in a message's context already."""
    return tracer.tracer if isinstance(tracer, IsolatedTracer) else tracer
