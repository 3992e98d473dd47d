"""A last guard around Celery's tracer: whatever goes wrong outside of a consumer is the failure of one message.

The consumer's own exceptions are dealt with in :mod:`channelsq.worker.running.execution`.  Around it Celery calls
receivers of its signals and writes logs and results.  What is raised there and is no :class:`Exception`, or is a lack
of memory, passes through the tracer; then Celery's pools never hear of the outcome, and a prefetch slot is taken for
good, or the worker ends.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.exceptions import Reject

from channelsq.delivery.ending import is_end, shown
from channelsq.message import Message
from channelsq.worker.running.celery_tracer_internals import outcome
from channelsq.worker.running.execution import report_failed

logger = logging.getLogger("channelsq.worker")


class GuardedTracer:
    """A task's tracer that raises nothing but the end of its worker.

    Args:
        task: a consumer's.
        tracer: what Celery, or a tool that watches it, has made for it.
    """

    __slots__ = ("task", "tracer")

    def __init__(self, task: Any, tracer: Any) -> None:
        self.task = task
        self.tracer = tracer

    def __call__(self, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        """Return what the tracer returns, or a failure."""
        try:
            return self.tracer(uuid, args, kwargs, request)
        except BaseException as error:
            if is_end(error):
                raise
            if isinstance(error, Reject):  # a task's own hook may do that; Celery does what it asks for
                return outcome(states.REJECTED, error, ExceptionInfo(internal=True))
            info = unhandled(error, str(self.task.name), _message_of(self.task, args))
            return outcome(states.FAILURE, info.exception, info)


def unhandled(error: BaseException, name: str, message: Message | None) -> ExceptionInfo:
    """Log that a message could not be handled, and have its socket or HTTP client wait no longer.

    Args:
        error: the one that is being handled.
        name: the consumer's name.
        message: None if it is not known.

    Returns:
        The failure, for Celery.
    """
    logger.error("%s: a message could not be handled", name, exc_info=error, extra={"action": "run_failed"})
    if message is not None:
        report_failed(message)
    failure = RuntimeError(f"{name}: a message could not be handled: {shown(error)}")
    return ExceptionInfo((RuntimeError, failure, error.__traceback__))


def _message_of(task: Any, args: Any) -> Message | None:
    layer = getattr(task, "layer", None)
    try:
        channel, content = args
        return None if layer is None else Message(content, channel, layer)
    except (TypeError, ValueError):
        return None
