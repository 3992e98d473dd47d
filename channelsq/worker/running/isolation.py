"""One message, one context: what a consumer leaves in context variables ends with its message.

Django keeps the language, the time zone, the URL configuration and the script prefix in context variables, Python its
decimal context, and tools their spans and scopes.  A worker's thread or process handles the messages of all visitors,
so each message gets a context of its own.  It begins empty: what ordinary tasks, or the program's start, have left in
the thread's own context is not there, and nothing gets back there.

Database connections are kept by thread (asgiref's thread-critical ``Local``) and stay the thread's.  Django's caches
would be made, and connect, anew in each context, so they are put into the thread's base, of which each message's
context is a copy.
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
    """The base of which the contexts of a thread's messages are copies."""

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
    """Make the backends of Django's handlers of connections; they connect when they are used."""
    handlers: list[Any] = [caches]
    with contextlib.suppress(ImportError):  # before Django 6.0
        from django.tasks import task_backends

        handlers.append(task_backends)
    for handler in handlers:
        with contextlib.suppress(Exception):  # of settings that cannot be used; who asks for it gets the error
            for alias in handler:
                with contextlib.suppress(Exception):
                    handler[alias]


class IsolatedTracer:
    """Celery's tracer of a task, in a context of its own for each message.

    The signals around a task are sent by its tracer, so their receivers share the context with the consumer.

    Args:
        tracer: as Celery's ``build_tracer`` makes it.
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
    """Return the tracer itself, for callers that are in a message's context already."""
    return tracer.tracer if isinstance(tracer, IsolatedTracer) else tracer
