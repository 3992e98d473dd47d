"""The request for a message of Kombu's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import time
from typing import Any, Protocol

from kombu import Message as KombuMessage

from channelsq.exceptions import BrokerUnavailable
from channelsq.message import Message
from channelsq.worker.running.execution import report_failed
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources.consumer_request import Events, Request

logger = logging.getLogger("channelsq.worker")

#: How many processes may die while they run one message.
MOST_DEATHS = 5


#: A message's id, and how often it was retried: another try has the same id.
Key = tuple[Any, Any]


def key_of(message: KombuMessage) -> Key:
    """Return what tells a message from all others, but not from itself when it comes again."""
    headers = message.headers
    return headers.get("id"), headers.get("retries") or 0


class Holder(Protocol):
    """The source as the requests for its messages know it."""

    #: The number of the connection that messages come by now.
    connections: int

    def is_lost(self, number: int) -> bool:
        """Return whether the connection with a number is not there any more."""

    def hold(self, request: KombuRequest) -> None:
        """Note that a message is held."""

    def abandon(self, request: KombuRequest) -> None:
        """Note that a message is not held any more, which the broker delivers again."""

    def settled(self, request: KombuRequest, conclude: Callable[[], None]) -> None:
        """Have ``conclude()`` tell the broker of a message's outcome soon."""

    def acknowledge_now(self, request: KombuRequest) -> bool:
        """Acknowledge a message before its consumer begins; return False if the broker delivers it again."""


class KombuRequest(Request):
    """The request for a message of Kombu's.

    Args:
        plan: the consumer's.
        source: where the message came from.
        message: Kombu's.
        mine: the message, with its id.
        kwargs: the route's.
        events: where events go; None for nowhere.
        headers: the message's.
    """

    #: Whether the message is done with, and must not run again.
    is_done = False

    _marks: tuple[str, ...] = ()

    def __init__(
        self,
        plan: TaskProfile,
        source: Holder,
        message: KombuMessage,
        mine: Message,
        kwargs: dict[str, Any],
        events: Events | None,
        headers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(plan, mine, kwargs, events, headers)
        self._source = source
        self._message: KombuMessage = message
        self.key = key_of(message)
        self._number = source.connections

    def take(self) -> None:
        super().take()
        self._source.hold(self)

    def adopt(self, message: KombuMessage, number: int) -> None:
        """Go on with the same message that came again, on the connection with a number.

        Raises:
            Exception: the transport's errors.
        """
        before, was_lost = self._message, self.is_lost
        self._message, self._number = message, number
        if not was_lost and before.delivery_tag != message.delivery_tag and not before.acknowledged:
            before.ack()  # a second one

    @property
    def is_lost(self) -> bool:
        return self._source.is_lost(self._number)

    def abandon(self) -> None:
        super().abandon()
        self._source.abandon(self)

    def _run(self) -> None:
        if self._mine.is_redelivered and not self._may_run_again():
            self._drop()
        else:
            super()._run()

    def _settle(self) -> None:
        self.is_done = True
        self._source.settled(self, self.acknowledge_message)
        self._forget_marks()

    def acknowledge_message(self) -> None:
        """Acknowledge Kombu's message, once.  In a thread that has the connection; raises the transport's errors."""
        if not self._message.acknowledged:
            self._message.ack()

    def _settle_first(self) -> bool:
        if not self._source.acknowledge_now(self):
            self.abandon()
            return False
        self._begin(time())
        self.acknowledge()
        return True

    def _put_back(self) -> None:
        self._source.settled(self, lambda: self._message.requeue())
        self._forget_marks()

    # -- deaths

    def _may_run_again(self) -> bool:
        """Return whether fewer than :data:`MOST_DEATHS` processes have died while they ran the message.

        Brokers say only that a message was delivered before.  So from its second run on each leaves a mark, which goes
        with the run's end.
        """
        layer = self._mine.channel_layer
        marks = tuple(f"death {number} {self.id}" for number in range(1, MOST_DEATHS + 1))
        try:
            for number, mark in enumerate(marks, 1):
                if layer.begin(mark) is not False:
                    self._marks = marks[:number]
                    return True
        except BrokerUnavailable as error:
            logger.warning("%s: its deaths cannot be counted: %s", self.id, error, extra={"action": "deaths_unknown"})
            return True
        self._marks = marks
        return False

    def _drop(self) -> None:
        channel = self._mine.channel_name
        logger.error(
            "channel %s: a message was dropped, as %d processes died with it", channel, MOST_DEATHS,
            extra={"action": "deadly_message_dropped", "channel": channel},
        )  # fmt: skip
        self.leave()
        report_failed(self._mine)
        self.is_done = self.acknowledged = True
        self._source.settled(self, lambda: self._message.reject())
        self._forget_marks()

    def _forget_marks(self) -> None:
        marks, self._marks = self._marks, ()
        try:
            for mark in marks:
                self._mine.channel_layer.end(mark, at_once=True)
        except BrokerUnavailable as error:  # then they end by themselves
            logger.debug("%s: marks are kept: %s", self.id, error, extra={"action": "marks_kept"})
