"""A guard around Celery's tracer: an error outside of the consumer fails only one message.

:mod:`channelsq.worker.running.execution` handles the consumer's own exceptions.  Around the consumer Celery calls
receivers of its signals and writes logs and results.  A MemoryError there, or an error that is not an
:class:`Exception`, passes through the tracer.  Then Celery's pools never get the outcome: a prefetch slot is lost, or
the worker ends.
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
    """A task's tracer that raises only exceptions that end the worker.

    Args:
        task: the task of a consumer.
        tracer: the tracer of Celery or of a monitoring tool.
    """

    __slots__ = ("task", "tracer")

    def __init__(self, task: Any, tracer: Any) -> None:
        self.task = task
        self.tracer = tracer

    def __call__(self, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        """Return the tracer's result, or a failure."""
        try:
            return self.tracer(uuid, args, kwargs, request)
        except BaseException as error:
            if is_end(error):
                raise
            if isinstance(error, Reject):  # a hook of the task may raise it; Celery then rejects the message
                return outcome(states.REJECTED, error, ExceptionInfo(internal=True))
            info = unhandled(error, str(self.task.name), _message_of(self.task, args))
            return outcome(states.FAILURE, info.exception, info)


def unhandled(error: BaseException, name: str, message: Message | None) -> ExceptionInfo:
    """Log that a message could not be handled, and end the wait of its socket or HTTP client.

    Args:
        error: the current exception.
        name: the consumer's name.
        message: the message; None if it is unknown.

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
