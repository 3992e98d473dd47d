"""Untraced runs: a consumer runs without Celery's tracer where the tracer would have no effect.

Without signal receivers and stored results (see :mod:`channelsq.worker.running.task_profile`), a consumer runs with
only ``task.request`` and ``current_task`` set.  If the consumer raises, Celery's tracer is called with the exception in
place of the consumer, and handles it as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app.task import Context

from channelsq.delivery import trace_context
from channelsq.layers.contract.outbox import Outbox, collected_here
from channelsq.layers.wire.signing import HEADER
from channelsq.message import Message
from channelsq.worker.running import celery_stack_internals, database_connections, sentry_internals
from channelsq.worker.running.consumer_task import BREADCRUMBS, DECRYPTED, RAISED, Verified, shown
from channelsq.worker.running.execution import run_consumer
from channelsq.worker.running.isolation import bare, fresh
from channelsq.worker.running.task_profile import TaskProfile

#: Returns the dict for ``task.request`` that Celery's tracer gets.
Describe = Callable[[], dict[str, Any]]

#: Keys that Celery's tracer sets itself.
_CALL = frozenset({"args", "called_directly", "kwargs"})

#: The result of a failed task in Celery's pools: 1, its ExceptionInfo, seconds.
Failure = tuple[int, Any, float]


class LazyContext(Context):
    """A ``task.request`` that is built at its first use: most consumers do not use it.

    Args:
        describe: returns the attributes.
        kwargs: the consumer's keyword arguments.
        args: the task's arguments.
    """

    #: The intake has verified every message that gets here.
    channelsq_verified = Verified

    def __init__(self, describe: Describe, args: list[Any], kwargs: dict[str, Any]) -> None:
        object.__getattribute__(self, "__dict__")["_lazy"] = describe, args, kwargs

    def __getattribute__(self, name: str) -> Any:
        said = object.__getattribute__(self, "__dict__")
        lazy = said.pop("_lazy", None)
        if lazy is not None:
            describe, args, kwargs = lazy
            for key, value in {**describe(), "args": args, "called_directly": False, "kwargs": kwargs}.items():
                said.setdefault(key, value)
        return object.__getattribute__(self, name)


def run(
    profile: TaskProfile, message: Message, kwargs: dict[str, Any], describe: Describe, outbox: Outbox | None = None
) -> Failure | None:
    """Run a consumer in a new context, with Celery's tracer if necessary.

    Args:
        profile: the profile of the consumer's task.
        message: the message.
        kwargs: the route's keyword arguments.
        outbox: collects the consumer's messages, to be sent with the acknowledgement; without an outbox they are sent
            when the consumer has returned.

    Returns:
        None for success.
    """
    return fresh().run(_run, profile, message, kwargs, describe, outbox)


def _run(
    profile: TaskProfile, message: Message, kwargs: dict[str, Any], describe: Describe, outbox: Outbox | None
) -> Failure | None:
    if outbox is not None:
        collected_here.set(outbox)  # until the context ends
    task = profile.task
    args = [message.channel_name, message.content]
    if not profile.untraced or (profile.is_watched and trace_context.of_message(message.content)):
        return _trace(task, message.id, args, kwargs, describe())
    context = LazyContext(describe, args, kwargs)
    celery_stack_internals.enter(task, context)
    connections = database_connections.here
    try:
        if connections.may_be_open:
            database_connections.begin()
        run_consumer(profile.call, message, profile.name, profile.sender, kwargs, profile.rerun)
    except Exception as error:
        raised = error
    else:
        return None
    finally:
        if connections.may_be_open:
            database_connections.close_old()
        celery_stack_internals.leave(task)
    # Includes attributes that the consumer has set: handlers of the failure get the same request.
    said = {name: value for name, value in vars(context).items() if name not in _CALL}
    failed = {RAISED: raised, BREADCRUMBS: sentry_internals.breadcrumbs()}
    return _trace(task, message.id, args, kwargs, {**said, **failed})


def _trace(
    task: Any, identity: str, args: list[Any], kwargs: dict[str, Any], request: dict[str, Any]
) -> Failure | None:
    request = {**request, **shown(args, kwargs), DECRYPTED: Verified}
    layer = getattr(task, "layer", None)
    signing = None if layer is None else layer.channel_layer.signing
    if signing is not None:  # the intake has verified the message
        request[HEADER] = signing.call(task.name, identity, args, kwargs)
    result, info, runtime, _ = bare(task.__trace__)(identity, args, kwargs, request)
    return None if info is None else (1, result, runtime)
