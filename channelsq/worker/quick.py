"""Running a consumer as Celery's tracer does, without what nobody asked that to do.

Celery's tracer sends two signals, describes the result and stores it, for every task.  Half of what a short
consumer costs goes there.  Where nobody listens and nothing is kept, a consumer is run with ``task.request`` and
``current_task`` in place, and that is all.  If it raises, Celery's tracer is asked after all: it finds the
exception instead of the consumer, and does what it does about one.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import signals
from celery._state import _task_stack  # type: ignore[attr-defined]  # not in its stubs
from celery.app import trace
from celery.app.task import Context
from celery.app.trace import task_has_custom, trace_ok_t
from celery.backends.base import Backend
from celery.loaders.base import BaseLoader

from channelsq.message import Message
from channelsq.worker import database, stacks
from channelsq.worker.task import RAISED, ConsumerTask

_DONE = trace_ok_t(None, None, 0.0, None)

_HOOKS = ("before_start", "on_success", "after_return")


_plain: dict[str, tuple[Any, bool]] = {}


def run(
    task: Any,
    identity: str,
    args: list[Any],
    kwargs: dict[str, Any],
    request: dict[str, Any],
    message: Message | None = None,
) -> Any:
    """Run a consumer's task, by Celery's tracer if need be; gives what that gives.

    Args:
        message: what the arguments say, if it is made already.
    """
    tracer, plain = _plain.get(task.name, (None, False))
    if tracer is not task.__trace__:
        plain = _is_plain(task)
        _plain[task.name] = task.__trace__, plain
    if plain and _nobody_listens():
        if message is None:
            message = Message(args[1], args[0], task.layer)
            message.id = identity
        return _run(task, identity, args, kwargs, request, message)
    return task.__trace__(identity, args, kwargs, {**request, **told(args, kwargs)})


def told(args: list[Any], kwargs: dict[str, Any]) -> dict[str, str]:
    """How a message's arguments are shown in logs: the content by its keys alone."""
    return {"argsrepr": f"({args[0]!r}, {list(args[1])})", "kwargsrepr": repr(kwargs)}


def _is_plain(task: Any) -> bool:
    """Whether Celery's tracer would do nothing for a consumer's success that is not done here.

    Tools that watch Celery put something of their own around its tracer, or around the task: then it is not.
    """
    kind = type(task)
    loader = type(task.app.loader)
    return (
        task.ignore_result
        and not task.track_started
        and kind.__call__ is ConsumerTask.__call__
        and getattr(task.__trace__, "__code__", None) is not None
        and task.__trace__.__code__.co_filename == trace.__file__
        and not any(task_has_custom(task, hook) for hook in _HOOKS)
        and loader.on_task_init is BaseLoader.on_task_init
        and loader.on_process_cleanup is BaseLoader.on_process_cleanup
        and type(task.backend).process_cleanup is Backend.process_cleanup
        and not trace.logger.isEnabledFor(logging.INFO)
    )


def _nobody_listens() -> bool:
    """Whether no signal of a successful task has a receiver other than channelsq's own."""
    return not signals.task_success.receivers and database.are_ours_alone()


def _run(
    task: Any, identity: str, args: list[Any], kwargs: dict[str, Any], request: dict[str, Any], message: Message
) -> Any:
    context = Context.__new__(Context)
    context.__dict__ = {**request, "args": args, "called_directly": False, "kwargs": kwargs}
    requests = task.request_stack
    stacks.enter(_task_stack, task)
    stacks.enter(requests, context)
    try:
        database.close_old()
        task.handle(message, kwargs)
    except Exception as error:
        raised = error
    else:
        return _DONE
    finally:
        database.close_old()
        stacks.leave(_task_stack)
        stacks.leave(requests)
    return task.__trace__(identity, args, kwargs, {**request, **told(args, kwargs), RAISED: raised})
