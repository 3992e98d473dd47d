"""Celery's request for a channel's message, for the threads of a source."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import time
from typing import Any, Protocol

from celery.worker import request, state
from kombu.exceptions import OperationalError

from channelsq.delivery import trace_context
from channelsq.delivery.ending import is_end
from channelsq.layers.contract.outbox import Outbox
from channelsq.layers.contract.source_contract import Source
from channelsq.layers.wire.signing import HEADER
from channelsq.message import Message
from channelsq.redis_core.suspects import MOST_DEATHS
from channelsq.transport.requests import worker_is_ending
from channelsq.worker.running import untraced_run
from channelsq.worker.running.consumer_task import shown
from channelsq.worker.running.execution import report_failed
from channelsq.worker.running.guard import unhandled
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources import held_messages

logger = logging.getLogger("channelsq.worker")


class Events(Protocol):
    """The destination of Celery's events of consumers."""

    @property
    def enabled(self) -> bool:
        """True if events are sent."""

    def of(self, identity: str) -> Any:
        """Return the event dispatcher for a message; None if its events are not sent."""


class Request(request.Request):
    """Celery's request for a message that is already decoded.

    Attributes that few consumers use are computed at their first use.

    Args:
        profile: the profile of the consumer's task.
        source: the source of the message.
        delivery: the source's delivery of the message.
        mine: the message, with its id.
        kwargs: the route's keyword arguments.
        events: the destination of events; None if they are not sent.
        headers: the message's headers, unless it came in the compact form.
    """

    # Attributes of Celery's __init__ that are the same for every message of a channel.
    _terminate_on_ack: Any = None
    _connection_errors = ()
    _utc = _decoded = True
    _content_type = _content_encoding = _parent_id = _on_ack = _on_reject = None
    _expires: Any = None

    #: The messages that the consumer sent; None without any.
    outbox: Outbox | None = None

    #: The earliest time.time() of the start; 0 for at once.
    due = 0.0

    def __init__(
        self,
        profile: TaskProfile,
        source: Source[Any],
        delivery: Any,
        mine: Message,
        kwargs: dict[str, Any],
        events: Events | None,
        headers: dict[str, Any] | None = None,
    ) -> None:
        self._profile = profile
        self._source = source
        self._delivery = delivery
        self._mine = mine
        self._kwargs = kwargs
        self._events = events
        self._headers = headers
        self.id = mine.id
        self.name = profile.name  # type: ignore[misc]  # a slot, as Celery's own __init__ has it

    # -- Attributes of Celery's request

    @property
    def _all_headers(self) -> dict[str, Any]:
        headers = self._headers
        if headers is None:
            headers = self._headers = {
                "lang": "py",
                "task": self._queue,
                "id": self.id,
                "root_id": self.id,
                "ignore_result": True,
            }
        return headers

    @property
    def _eventer(self) -> Any:
        events = self._events
        return None if events is None else events.of(self.id)

    @property
    def _task(self) -> Any:
        return self._profile.task

    @property
    def _type(self) -> str:
        return self._profile.name

    @property
    def _app(self) -> Any:
        return self._profile.task.app

    @property
    def _hostname(self) -> Any:
        return self._profile.fields["hostname"]

    @property
    def _root_id(self) -> Any:
        return self._all_headers.get("root_id") or self.id

    @property
    def _ignore_result(self) -> Any:
        return self._profile.task.ignore_result

    @property
    def _eta(self) -> Any:
        return datetime.fromtimestamp(self.due, UTC) if self.due else None

    @property
    def _args(self) -> list[Any]:
        return [self._mine.channel_name, self._mine.content]

    @property
    def _body(self) -> list[Any]:
        return [self._args, self._kwargs, {}]

    @property
    def _Request__payload(self) -> list[Any]:
        return self._body

    @property
    def _queue(self) -> str:
        """The name of the channel's queue, and of the task in the message."""
        return self._mine.channel_layer.channel_layer.queue_name(self._mine.channel_name)

    @property
    def _delivery_info(self) -> dict[str, Any]:
        return {
            "exchange": "",
            "routing_key": self._queue,
            "priority": None,
            "redelivered": self._mine.is_redelivered,
        }

    @property
    def _request_dict(self) -> dict[str, Any]:
        return self.describe()

    @property
    def _argsrepr(self) -> str:
        return shown(self._args, self._kwargs)["argsrepr"]

    @property
    def _kwargsrepr(self) -> str:
        return shown(self._args, self._kwargs)["kwargsrepr"]

    def describe(self) -> dict[str, Any]:
        """Return ``task.request``."""
        signing = self._mine.channel_layer.channel_layer.signing
        signed = (
            {} if signing is None else {HEADER: signing.call(self._profile.name, self.id, self._args, self._kwargs)}
        )
        described = {
            **self._profile.fields,
            **self._all_headers,
            **signed,
            "ignore_result": self._profile.task.ignore_result,  # the consumer's, not the sender's
            "task": self._profile.name,
            "args": self._args,
            "kwargs": self._kwargs,
            "correlation_id": self.id,
            "delivery_info": self._delivery_info,
        }
        trace_context.add_to(described, self._mine.content)
        return described

    # -- Life cycle

    @property
    def is_lost(self) -> bool:
        """True if the delivery's connection is lost: the broker redelivers the message."""
        return self._source.is_lost(self._delivery)

    def take(self) -> None:
        """Record that the worker holds the message."""
        held_messages.reserved[self.id] = self

    def leave(self) -> None:
        """Record that the worker does not hold the message any more."""
        held_messages.reserved.pop(self.id, None)

    def abandon(self) -> None:
        """Drop the record of a message that the broker redelivers."""
        self.leave()
        self._source.abandon(self._delivery)

    def run(self) -> None:
        """Run the consumer and settle the message; raise only exceptions that end the worker.

        A message is not begun if it is left to another worker or was revoked while it waited.
        """
        try:
            if self._source.is_lost(self._delivery):
                self.abandon()
            elif worker_is_ending():
                self.give_back()
            elif not ((self._expires or self.id in state.revoked) and self.revoked()):
                self._run()
        except BaseException as error:
            self.give_up(error)

    def _run(self) -> None:
        profile, source = self._profile, self._source
        if self._mine.is_redelivered and source.is_deadly(self._delivery, self.id):
            self._bury()
            return
        if profile.is_handed_over:
            self._hand_over()
            return
        if profile.late:
            self._begin(time())
            self.outbox = source.outbox(self._delivery)
        elif not self._acknowledge_first():
            return
        self._finish(untraced_run.run(profile, self._mine, self._kwargs, self.describe, self.outbox))

    def _acknowledge_first(self) -> bool:
        """Acknowledge a message that runs at most once, and begin; return False if it must not begin."""
        may_begin = self._source.acknowledge_first(self._delivery)
        self.acknowledged = True
        if may_begin:
            self._begin(time())
        else:
            self.leave()
        return may_begin

    def _bury(self) -> None:
        """Set a message aside that has ended too many processes to run again."""
        channel = self._mine.channel_name
        logger.error(
            "channel %s: a message was dropped, as %d processes died with it", channel, MOST_DEATHS,
            extra={"action": "deadly_message_dropped", "channel": channel},
        )  # fmt: skip
        self.leave()
        report_failed(self._mine)
        self.acknowledged = True
        self._source.set_aside(self._delivery, f"{MOST_DEATHS} processes died with it")

    def _begin(self, started: float) -> None:
        self.worker_pid = self._profile.pid  # type: ignore[assignment]  # as Celery itself
        self.time_start = started
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if self._events is not None:
            self.send_event("task-started")

    def _hand_over(self) -> None:
        try:
            self._profile.task.hand_over(self._mine, self._kwargs)
        except OperationalError as error:
            logger.warning("%s was not handed over: %s", self.humaninfo(), error, extra={"action": "not_handed_over"})
            self.give_back()
            return
        self.leave()
        self.acknowledge()

    def _finish(self, failure: untraced_run.Failure | None) -> None:
        """Settle the message by the outcome of its consumer."""
        self.leave()
        if failure is not None:
            self.on_success(failure)  # Celery's method handles failures, too
            return
        self.acknowledge()
        if self._events is not None:
            self.send_event("task-succeeded", result="None", runtime=time() - (self.time_start or 0.0))

    def give_up(self, error: BaseException) -> None:
        """Acknowledge a message that failed outside of its consumer; raise errors that end the worker."""
        if is_end(error):
            raise error
        self.outbox = None
        try:
            unhandled(error, self.name, self._mine)
        finally:
            self.leave()
            self.acknowledge()

    def revoked(self) -> bool:
        """Return whether the message was revoked or has expired, and then settle it, as in Celery."""
        was_revoked = bool(super().revoked())
        if was_revoked:
            self.leave()
        return was_revoked

    def acknowledge(self) -> None:
        """Acknowledge the message; the consumer's messages are sent in the same transaction."""
        if not self.acknowledged:
            self.acknowledged = True
            self._source.settle(self._delivery, self.outbox)

    def reject(self, requeue: bool = False) -> None:
        """Reject the message; with ``requeue`` it is redelivered."""
        if self.acknowledged:
            return
        if not requeue:
            self.acknowledge()
        else:
            self.acknowledged = True
            self._source.give_back(self._delivery)
        self.send_event("task-rejected", requeue=requeue)

    def give_back(self) -> None:
        """Give the message back, to be redelivered."""
        self.leave()
        self.reject(requeue=True)
