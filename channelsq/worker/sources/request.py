"""Celery's request for a channel's message, as the threads of a source run it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import time
from typing import Any, ClassVar

from celery.worker import request, state
from kombu.exceptions import OperationalError

from channelsq.ending import is_end
from channelsq.layers.direct import Parcel
from channelsq.layers.signing import HEADER
from channelsq.message import Message
from channelsq.transport.codec import Payload, decode, mark_redelivered, set_deaths
from channelsq.transport.consuming import ConsumingChannel
from channelsq.transport.qos import QoS
from channelsq.transport.requests import worker_is_ending
from channelsq.transport.streams import Entry
from channelsq.worker import quick
from channelsq.worker.guard import unhandled
from channelsq.worker.plan import Plan
from channelsq.worker.sources import books

logger = logging.getLogger("channelsq.worker")

#: Returns what events of a message go to; None for nothing.
EventerOf = Callable[[str], Any]


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
        #: See :func:`channelsq.transport.burial.count_death`.
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


class Request(request.Request):
    """Celery's request for a message of which everything is known already.

    Parts that few consumers ask for are made when they are asked for.

    Args:
        plan: the consumer's.
        qos: of the broker channel that the message came through.
        entry: the transport's entry.
        mine: the message, with its id.
        kwargs: the route's.
        eventer_of: decides about events.
        headers: the message's, if they say more than its compact form does.
    """

    # What Celery's __init__ sets, and is the same for every message of a channel.
    _terminate_on_ack: Any = None
    _connection_errors = ()
    _utc = _decoded = True
    _content_type = _content_encoding = _parent_id = _on_ack = _on_reject = None
    _expires: Any = None

    #: What the consumer sent; None for nothing.
    parcel: Parcel | None = None

    #: The time.time() before which it is not begun; 0 for at once.
    due = 0.0

    def __init__(
        self,
        plan: Plan,
        qos: QoS,
        entry: Entry,
        mine: Message,
        kwargs: dict[str, Any],
        eventer_of: EventerOf,
        headers: dict[str, Any] | None = None,
    ) -> None:
        self._plan = plan
        self._qos = qos
        self._source = entry
        self._mine = mine
        self._kwargs = kwargs
        self._eventer_of = eventer_of
        self._headers = headers
        self._taken: Taken | None = None
        self.id = mine.id
        self.name = plan.name  # type: ignore[misc]  # a slot, as Celery's own __init__ has it

    # -- what Celery knows of a request

    @property
    def _message(self) -> Taken:
        taken = self._taken
        if taken is None:
            taken = self._taken = Taken(self._qos.channel, self._source, self._all_headers)
        return taken

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
    def _raw(self) -> Payload:
        """The payload, for the QoS that holds this as the message."""
        return self._message._raw

    @property
    def death(self) -> str | None:
        """See :func:`channelsq.transport.burial.count_death`."""
        return None if self._taken is None else self._taken.death

    @property
    def _eventer(self) -> Any:
        return self._eventer_of(self.id)

    @property
    def _task(self) -> Any:
        return self._plan.task

    @property
    def _type(self) -> str:
        return self._plan.name

    @property
    def _app(self) -> Any:
        return self._plan.task.app

    @property
    def _hostname(self) -> Any:
        return self._plan.fields["hostname"]

    @property
    def _root_id(self) -> Any:
        return self._all_headers.get("root_id") or self.id

    @property
    def _ignore_result(self) -> Any:
        return self._plan.task.ignore_result

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
        """The name of the channel's queue, which is the name of the task in the message, too."""
        layer: Any = self._mine.channel_layer
        return str(layer.queue_prefix) + self._mine.channel_name

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
        return quick.told(self._args, self._kwargs)["argsrepr"]

    @property
    def _kwargsrepr(self) -> str:
        return quick.told(self._args, self._kwargs)["kwargsrepr"]

    def describe(self) -> dict[str, Any]:
        """Return ``task.request``."""
        signing = self._mine.channel_layer.channel_layer.signing
        signed = {} if signing is None else {HEADER: signing.call(self._plan.name, self.id, self._args, self._kwargs)}
        return {
            **self._plan.fields,
            **self._all_headers,
            **signed,
            "task": self._plan.name,
            "args": self._args,
            "kwargs": self._kwargs,
            "correlation_id": self.id,
            "delivery_info": self._delivery_info,
        }

    # -- its course

    def take(self) -> None:
        """Note that the worker has the message."""
        books.reserved[self.id] = self
        self._qos.deliver(self, self._source.tag)

    def leave(self) -> None:
        """Note that the worker has it no more."""
        books.reserved.pop(self.id, None)
        books.active.pop(self.id, None)
        books.scheduled.pop(self.id, None)

    @property
    def channel(self) -> Any:
        """The broker channel that it came through."""
        return self._qos.channel

    def run(self) -> None:
        """Run the consumer, and do what its outcome asks for; nothing but the end of the worker is raised.

        A message that another worker has, or is to get, is not begun, nor one that was revoked while it waited.
        """
        try:
            if self._qos.channel.closed:
                self.leave()
            elif worker_is_ending():
                self.give_back()
            elif not ((self._expires or self.id in state.revoked) and self.revoked()):
                self._run()
        except BaseException as error:
            self.give_up(error)

    def _run(self) -> None:
        plan = self._plan
        if plan.late:
            self._begin(time())
            self.parcel = Parcel(self._mine.channel_layer.channel_layer)  # type: ignore[arg-type]  # it has a source
        elif not self._settle_first():
            return
        self._finish(quick.run(plan, self._mine, self._kwargs, self.describe, self.parcel))

    def _begin(self, started: float) -> None:
        self.worker_pid = self._plan.pid  # type: ignore[assignment]  # as Celery itself
        self.time_start = started
        books.active[self.id] = self
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        self.send_event("task-started")

    def _settle_first(self) -> bool:
        """Acknowledge what runs at most once; False if it is not to begin: Redis does not know, or another had it."""
        try:
            is_mine = self._qos.channel.acknowledge_now(self._source.tag)
        except self._qos.channel.connection_errors as error:
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

    def _finish(self, failure: quick.Failure | None) -> None:
        """Do what the outcome asks for."""
        self.leave()
        if failure is not None:
            self.on_success(failure)  # which knows what to do about a failure
            return
        self.acknowledge()
        if self._eventer is not None:
            self.send_event("task-succeeded", result="None", runtime=time() - (self.time_start or 0.0))

    def give_up(self, error: BaseException) -> None:
        """Be done with a message whose handling failed outside of its consumer; raise the end of the worker."""
        if is_end(error):
            raise error
        self.parcel = None
        try:
            unhandled(error, self.name, self._mine)
        finally:
            self.leave()
            self.acknowledge()

    def revoked(self) -> bool:
        """Return whether it was revoked or has expired, and then be done with it; see Celery's."""
        was_revoked = bool(super().revoked())
        if was_revoked:
            self.leave()
        return was_revoked

    def acknowledge(self) -> None:
        """Note that the message is done with; what its consumer sent goes out in the same transaction."""
        if not self.acknowledged:
            self.acknowledged = True
            parcel = self.parcel
            if parcel is not None and not (parcel.envelopes or parcel.commands):
                parcel = None
            entry = self._source
            self._qos.settle(entry.key, entry.id, entry.tag, parcel)

    def reject(self, requeue: bool = False) -> None:
        """Note that the message is not wanted; with ``requeue`` it comes again."""
        if self.acknowledged:
            return
        if not requeue:
            self.acknowledge()
        else:
            self.acknowledged = True
            self._message.reject_log_error(logger, self._qos.channel.connection_errors, requeue=True)
        self.send_event("task-rejected", requeue=requeue)

    def give_back(self) -> None:
        """Have it handled once more."""
        self.leave()
        self.reject(requeue=True)


class HandedOver(Request):
    """A message that Celery's pool is to handle, since threads cannot keep its consumer's time limit."""

    def _run(self) -> None:
        try:
            self._plan.task.hand_over(self._mine, self._kwargs)
        except OperationalError as error:
            logger.warning("%s was not handed over: %s", self.humaninfo(), error, extra={"action": "not_handed_over"})
            self.give_back()
            return
        self.leave()
        self.acknowledge()
