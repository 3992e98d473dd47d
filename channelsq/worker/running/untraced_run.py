"""Running a consumer as Celery's tracer does, without what nobody asked that to do.

Where nobody listens to signals and nothing is kept (see :mod:`channelsq.worker.running.task_profile`), a consumer is
run with ``task.request`` and ``current_task`` in place, and that is all.  If it raises, Celery's tracer is asked after
all: it finds the exception instead of the consumer, and does what it does about one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app.task import Context

from channelsq.delivery import trace_context
from channelsq.layers.contract.outbox import Outbox, collected_here
from channelsq.layers.wire.signing import HEADER
from channelsq.message import Message
from channelsq.worker.running import celery_stack_internals, database, sentry_internals
from channelsq.worker.running.consumer_task import BREADCRUMBS, RAISED, Verified, shown
from channelsq.worker.running.execution import run_consumer
from channelsq.worker.running.isolation import bare, fresh
from channelsq.worker.running.task_profile import TaskProfile

#: Makes the dict that Celery's tracer is given for ``task.request``.
Describe = Callable[[], dict[str, Any]]

#: What Celery's tracer says itself.
_CALL = frozenset({"args", "called_directly", "kwargs"})

#: What Celery's pools hand back of a task that did not succeed: 1, its ExceptionInfo, seconds.
Failure = tuple[int, Any, float]


class LazyContext(Context):
    """``task.request``, which is made when somebody looks: most consumers do not.

    Args:
        describe: gives what it says.
        kwargs: those of the consumer.
        args: those of the task.
    """

    #: Nothing comes here that was not looked at.
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
    """Run a consumer in a context of its own, by Celery's tracer if need be.

    Args:
        profile: that was looked at.
        message: its message.
        kwargs: the route's arguments.
        outbox: gets what it sends, to leave with the acknowledgement; without one that goes out when it has returned.

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
    connections = database.here
    try:
        if connections.may_be_open:
            database.begin()
        run_consumer(profile.call, message, profile.name, profile.sender, kwargs, profile.rerun)
    except Exception as error:
        raised = error
    else:
        return None
    finally:
        if connections.may_be_open:
            database.close_old()
        celery_stack_internals.leave(task)
    # With what the consumer has left there: it is the same request to whoever hears of the failure.
    said = {name: value for name, value in vars(context).items() if name not in _CALL}
    failed = {RAISED: raised, BREADCRUMBS: sentry_internals.breadcrumbs()}
    return _trace(task, message.id, args, kwargs, {**said, **failed})


def _trace(
    task: Any, identity: str, args: list[Any], kwargs: dict[str, Any], request: dict[str, Any]
) -> Failure | None:
    request = {**request, **shown(args, kwargs)}
    layer = getattr(task, "layer", None)
    signing = None if layer is None else layer.channel_layer.signing
    if signing is not None:  # it was looked at before it came here
        request[HEADER] = signing.call(task.name, identity, args, kwargs)
    result, info, runtime, _ = bare(task.__trace__)(identity, args, kwargs, request)
    return None if info is None else (1, result, runtime)
