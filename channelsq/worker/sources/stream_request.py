"""The request for an entry of a stream."""

from __future__ import annotations

import logging
from time import time
from typing import Any, ClassVar

from channelsq.layers.stream_sender import Outbox
from channelsq.message import Message
from channelsq.transport.consuming import ConsumingChannel
from channelsq.transport.payloads import Payload, decode, mark_redelivered, set_deaths
from channelsq.transport.streams import Entry
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources.consumer_request import Events, Request

logger = logging.getLogger("channelsq.worker")


class Taken:
    """A stream's entry, with what the transport, Celery and a request ask of a Kombu message.

    Args:
        channel: the broker channel that it came through.
        entry: the entry.
        headers: the message's.
    """

    __slots__ = ("channel", "death", "delivery_tag", "entry", "headers")

    properties: ClassVar[dict[str, Any]] = {}

    def __init__(self, channel: ConsumingChannel, entry: Entry, headers: dict[str, Any]) -> None:
        self.channel = channel
        self.entry = entry
        self.delivery_tag = entry.tag
        self.headers = headers
        #: See :func:`channelsq.transport.dead_letters.count_death`.
        self.death: str | None = None

    @property
    def _raw(self) -> Payload:
        """The payload, for a message that is given back."""
        payload = decode(self.entry.data)
        if self.entry.redelivered:
            mark_redelivered(payload)
        set_deaths(payload, self.entry.deaths)
        payload["properties"]["delivery_tag"] = self.delivery_tag
        return payload

    def reject_log_error(self, log: Any, errors: tuple[type[Exception], ...], requeue: bool = False) -> None:
        """Reject the message; if the connection is lost, when there is another one."""
        try:
            self.channel.qos.reject(self.delivery_tag, requeue=requeue)
        except errors as error:
            log.warning("%s is given back later: %s", self.delivery_tag, error, extra={"action": "give_back_waits"})
            self.channel.give_back_later(self.delivery_tag)


class StreamRequest(Request):
    """The request for an entry of a stream.

    Args:
        plan: the consumer's.
        channel: the broker channel that the entry came through.
        entry: the entry.
        mine: the message, with its id.
        kwargs: the route's.
        events: where events go; None for nowhere.
        headers: the message's, if they say more than its compact form does.
    """

    _taken: Taken | None = None

    def __init__(
        self,
        plan: TaskProfile,
        channel: ConsumingChannel,
        entry: Entry,
        mine: Message,
        kwargs: dict[str, Any],
        events: Events | None,
        headers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(plan, mine, kwargs, events, headers)
        #: Also for the QoS that holds this as the message.
        self.channel = channel
        self._qos = channel.stream_qos
        self._entry = entry

    @property
    def _message(self) -> Taken:
        taken = self._taken
        if taken is None:
            taken = self._taken = Taken(self.channel, self._entry, self._all_headers)
        return taken

    @property
    def _raw(self) -> Payload:
        """The payload, for the QoS that holds this as the message."""
        return self._message._raw

    @property
    def death(self) -> str | None:
        """See :func:`channelsq.transport.dead_letters.count_death`."""
        return None if self._taken is None else self._taken.death

    def take(self) -> None:
        super().take()
        self._qos.deliver(self, self._entry.tag)

    @property
    def is_lost(self) -> bool:
        return self.channel.closed

    def _collect(self) -> None:
        self.parcel = Outbox(self._mine.channel_layer.channel_layer)

    def _settle(self) -> None:
        parcel = self.parcel
        if parcel is not None and not (parcel.envelopes or parcel.commands):
            parcel = None
        entry = self._entry
        self._qos.settle(entry.key, entry.id, entry.tag, parcel)

    def _settle_first(self) -> bool:
        """Acknowledge what runs at most once; False if it is not to begin: Redis does not know, or another had it."""
        try:
            is_mine = self.channel.acknowledge_now(self._entry.tag)
        except self.channel.connection_errors as error:
            # Redis knows whether it is acknowledged; if so, this does nothing.
            logger.warning("%s was not begun: %s", self.humaninfo(), error, extra={"action": "not_begun"})
            self.give_back()
            return False
        if not is_mine:
            self.leave()
            self.acknowledge()
            return False
        self._begin(time())
        self.acknowledge()
        return True

    def _put_back(self) -> None:
        self._message.reject_log_error(logger, self.channel.connection_errors, requeue=True)
