"""Celery's request for a channel's message, for the threads of a source."""

from __future__ import annotations

import logging
from time import time

from kombu.exceptions import OperationalError

from channelsq.delivery.ending import is_end
from channelsq.layers.contract.outbox import Outbox
from channelsq.redis_core.suspects import MOST_DEATHS
from channelsq.transport.celery_end_internals import worker_is_ending
from channelsq.worker.running import untraced_run
from channelsq.worker.running.celery_state_internals import all_total_count, revoked, total_count
from channelsq.worker.running.execution import report_failed
from channelsq.worker.running.guard import unhandled
from channelsq.worker.sources import held_messages
from channelsq.worker.sources.celery_request_internals import MessageRequest

logger = logging.getLogger("channelsq.worker")


class Request(MessageRequest):
    """The request for a source's message: it runs the consumer and settles the message."""

    #: The messages that the consumer sent; None without any.
    outbox: Outbox | None = None

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
            elif not ((self.expires_at or self.id in revoked) and self.revoked()):
                self._run()
        except BaseException as error:
            self.give_up(error)

    def _run(self) -> None:
        profile, source = self.profile, self._source
        if self.channel_message.is_redelivered and source.is_deadly(self._delivery, self.id):
            self._set_aside()
            return
        if profile.is_handed_over:
            self._hand_over()
            return
        if profile.late:
            self._begin(time())
            self.outbox = source.outbox(self._delivery)
        elif not self._acknowledge_first():
            return
        self._finish(untraced_run.run(profile, self.channel_message, self.arguments, self.describe, self.outbox))

    def _acknowledge_first(self) -> bool:
        """Acknowledge a message that runs at most once, and begin; return False if it must not begin."""
        may_begin = self._source.acknowledge_first(self._delivery)
        self.acknowledged = True
        if may_begin:
            self._begin(time())
        else:
            self.leave()
        return may_begin

    def _set_aside(self) -> None:
        """Set a message aside that has ended too many processes to run again."""
        channel = self.channel_message.channel_name
        logger.error(
            "channel %s: a message was dropped, as %d processes died with it", channel, MOST_DEATHS,
            extra={"action": "deadly_message_dropped", "channel": channel},
        )  # fmt: skip
        self.leave()
        report_failed(self.channel_message)
        self.acknowledged = True
        self._source.set_aside(self._delivery, f"{MOST_DEATHS} processes died with it")

    def _begin(self, started: float) -> None:
        self.worker_pid = self.profile.pid  # type: ignore[assignment]  # as Celery itself
        self.time_start = started
        total_count[self.name] += 1
        all_total_count[0] += 1
        if self._events is not None:
            self.send_event("task-started")

    def _hand_over(self) -> None:
        try:
            self.profile.task.hand_over(self.channel_message, self.arguments)
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
            unhandled(error, self.name, self.channel_message)
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
