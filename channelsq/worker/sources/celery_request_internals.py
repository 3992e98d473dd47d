"""Celery's request for a channel's message: attributes that Celery sets from a task's message are computed when used.

Celery's pools, events, signals and ``inspect`` read these attributes, and Celery's own ``__init__`` takes longer than a
short consumer.  Private parts of Celery; ``tests/unit/worker/sources/test_celery_request_internals.py`` pins them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from celery.worker import request

from channelsq.delivery import trace_context
from channelsq.layers.contract.source_contract import Source
from channelsq.layers.wire.signing import HEADER
from channelsq.message import Message
from channelsq.worker.running.consumer_task import shown
from channelsq.worker.running.task_profile import TaskProfile


class Events(Protocol):
    """The destination of Celery's events of consumers."""

    @property
    def enabled(self) -> bool:
        """True if events are sent."""

    def of(self, identity: str) -> Any:
        """Return the event dispatcher for a message; None if its events are not sent."""


class MessageRequest(request.Request):
    """Celery's request for a message that is already decoded.

    Args:
        profile: the profile of the consumer's task.
        source: the source of the message.
        delivery: the source's delivery of the message.
        message: the message, with its id.
        arguments: the route's keyword arguments.
        events: the destination of events; None if they are not sent.
        headers: the message's headers, unless it came in the compact form.
    """

    # Attributes of Celery's __init__ that are the same for every message of a channel.
    _terminate_on_ack: Any = None
    _connection_errors = ()
    _utc = _decoded = True
    _content_type = _content_encoding = _parent_id = _on_ack = _on_reject = None

    #: The time from which it must not begin any more; None for no end.
    expires_at: datetime | None = None

    #: The earliest time.time() of the start; 0 for at once.
    due = 0.0

    def __init__(
        self,
        profile: TaskProfile,
        source: Source[Any],
        delivery: Any,
        message: Message,
        arguments: dict[str, Any],
        events: Events | None,
        headers: dict[str, Any] | None = None,
    ) -> None:
        self.profile = profile
        self._source = source
        self._delivery = delivery
        self.channel_message = message
        self.arguments = arguments
        self._events = events
        self._headers = headers
        self.id = message.id
        self.name = profile.name  # type: ignore[misc]  # a slot, as Celery's own __init__ has it

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
        return self.profile.task

    @property
    def _type(self) -> str:
        return self.profile.name

    @property
    def _app(self) -> Any:
        return self.profile.task.app

    @property
    def _hostname(self) -> Any:
        return self.profile.fields["hostname"]

    @property
    def _root_id(self) -> Any:
        return self._all_headers.get("root_id") or self.id

    @property
    def _ignore_result(self) -> Any:
        return self.profile.task.ignore_result

    @property
    def _eta(self) -> Any:
        return datetime.fromtimestamp(self.due, UTC) if self.due else None

    @property
    def _expires(self) -> datetime | None:
        return self.expires_at

    @_expires.setter
    def _expires(self, moment: datetime | None) -> None:
        self.expires_at = moment

    @property
    def _args(self) -> list[Any]:
        return [self.channel_message.channel_name, self.channel_message.content]

    @property
    def _kwargs(self) -> dict[str, Any]:
        return self.arguments

    @property
    def _body(self) -> list[Any]:
        return [self._args, self._kwargs, {}]

    @property
    def _Request__payload(self) -> list[Any]:
        return self._body

    @property
    def _queue(self) -> str:
        """The name of the channel's queue, and of the task in the message."""
        return self.channel_message.channel_layer.channel_layer.queue_name(self.channel_message.channel_name)

    @property
    def _delivery_info(self) -> dict[str, Any]:
        return {
            "exchange": "",
            "routing_key": self._queue,
            "priority": None,
            "redelivered": self.channel_message.is_redelivered,
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
        signing = self.channel_message.channel_layer.channel_layer.signing
        signed = {} if signing is None else {HEADER: signing.call(self.profile.name, self.id, self._args, self._kwargs)}
        described = {
            **self.profile.fields,
            **self._all_headers,
            **signed,
            "ignore_result": self.profile.task.ignore_result,  # the consumer's, not the sender's
            "task": self.profile.name,
            "args": self._args,
            "kwargs": self._kwargs,
            "correlation_id": self.id,
            "delivery_info": self._delivery_info,
        }
        trace_context.add_to(described, self.channel_message.content)
        return described
