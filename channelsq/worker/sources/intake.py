"""The intake: it checks and routes a broker's message, creates the request and announces it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celery import signals
from kombu.serialization import prepare_accept_content

from channelsq.core.wire_version import NewerWire, check_headers, teller
from channelsq.delivery.ending import is_end
from channelsq.layers.contract.source_contract import Source, TaskMessage
from channelsq.layers.wire.signing import HEADER, Refused
from channelsq.layers.wire.task_messages import content_of, moment_of, payload_of
from channelsq.layers.wire.wire_forms import CONTENT_TYPE, EXPIRES_HEADER, raw_body
from channelsq.message import Message
from channelsq.transport.payloads import DEATHS
from channelsq.worker.running.celery_tracer_internals import LOG_RECEIVED
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.consumer_tasks import ConsumerTasks, log_unrouted
from channelsq.worker.running.execution import report_done, report_failed
from channelsq.worker.running.guard import unhandled
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources.celery_request_internals import Events
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.newer import Newer

if TYPE_CHECKING:
    from channelsq.layers.wire.encryption import Encryption
    from channelsq.layers.wire.signing import Signing

logger = logging.getLogger("channelsq.worker")

#: Celery's own logger, so that its log lines stay under the usual name.
_received = logging.getLogger("celery.worker.strategy")

#: Headers of a signed message that are accepted although the signature does not cover them.
_HARMLESS = (
    "lang", "id", "root_id", "parent_id", "eta", "expires", "ignore_result", "origin", "redelivered", "argsrepr",
    "kwargsrepr", "task", DEATHS, EXPIRES_HEADER,
)  # fmt: skip

#: The outcome of a message that needs a newer worker, for the log.
LEFT, KEPT = "is left to newer workers", "was set aside, as too many wait for a newer worker"


class Intake:
    """The factory of requests for the messages of one layer.

    Args:
        tasks: the layer's consumers.
        hostname: the worker's hostname.
        events: the destination of events.
        sender: the sender of ``task_received``.
        pool_keeps_limits: whether Celery's pool can kill a task that takes too long.
    """

    # Set for each poll:
    _source: Source[Any]
    _newer: Newer

    def __init__(
        self, tasks: ConsumerTasks, hostname: str, events: Events, sender: Any, *, pool_keeps_limits: bool
    ) -> None:
        self._tasks = tasks
        self._layer = tasks.layer
        self._hostname = hostname
        self._every_event = events
        self._sender = sender
        self._pool_keeps_limits = pool_keeps_limits
        self._signing: Signing | None = tasks.layer.channel_layer.signing
        self._encryption: Encryption = tasks.layer.channel_layer.protection.encryption
        #: The channel of each queue.
        self._channels = {tasks.layer.queue_name(channel): channel for channel in tasks.channels}
        #: Content types that are decoded.
        self.accept = prepare_accept_content(tasks.app.conf.accept_content)
        self._profiles: dict[str, TaskProfile] = {}
        # Read once per poll:
        self._looked_at: set[str] = set()
        self._events: Events | None = None
        self._tells = False

    def take(self, source: Source[Any], deliveries: Sequence[Any], newer: Newer) -> list[Request]:
        """Return the requests of deliveries.

        A message that cannot be handled is dropped, or becomes a dead letter, and is logged; it does not stop the
        others.

        Args:
            source: the source of the deliveries.
            deliveries: the result of its poll.
            newer: holds the messages that need a newer worker.

        Raises:
            source.errors: the connection is lost; the source's next poll returns the deliveries again.
        """
        self._source = source
        self._newer = newer
        self._look()
        taken: list[Request] = []
        for place, delivery in enumerate(deliveries):
            try:
                request = self._take_plain(delivery) or self._take_any(delivery)
            except BaseException as error:  # any error that a message's content may cause
                if isinstance(error, source.errors):
                    source.unread(deliveries[place:])
                    if taken:
                        return taken
                    raise
                if is_end(error):
                    raise
                unhandled(error, source.queue_of(delivery), None)
                source.drop(delivery)
                continue
            if request is not None and self._admit(request):
                taken.append(request)
        return taken

    # -- Reading a message

    def _take_plain(self, delivery: Any) -> Request | None:
        """Return the request of a message in a layer's format; None for other messages, or if it must not run."""
        plain = self._source.plain(delivery)
        if plain is None:
            return None
        channel, message_id, content = plain
        try:
            mine = Message(content, channel, self._layer)
            resolved = self._layer.router.resolve(mine)
        except (TypeError, ValueError):  # not a message of this package
            return None
        if resolved is None:
            return None
        route, kwargs = resolved
        mine.id = message_id
        if not route.ordered:
            report_done(mine)
        profile = self._profile(self._tasks.task_of(route.consumer))
        return Request(profile, self._source, delivery, mine, {**kwargs} if kwargs else {}, self._events)

    def _take_any(self, delivery: Any) -> Request | None:
        """Return the request of any message; None if the message must not run and was settled here."""
        source, queue = self._source, self._source.queue_of(delivery)
        try:
            message = source.open(delivery)
            if message is None:
                return None
            check_headers(message.headers)
            if message.headers.get("task") == queue:
                return self._channel_message(delivery, message, queue)
            return self._retry(delivery, message, queue)
        except NewerWire as error:
            if self._newer.hold(delivery):
                teller.tell(queue, error, LEFT)
            else:
                source.set_aside(delivery, str(error))
                teller.tell(queue, error, KEPT)
        except Refused as error:  # the check has logged it
            source.set_aside(delivery, error.reason)
        except (TypeError, ValueError) as error:
            self._refuse(delivery, queue, error)
        return None

    def _refuse(self, delivery: Any, queue: str, error: Exception) -> None:
        channel = self._channels.get(queue, queue)
        logger.error(
            "channel %s: a message was refused: %s", channel, error,
            extra={"action": "foreign_message_refused", "channel": channel},
        )  # fmt: skip
        self._source.set_aside(delivery, str(error))

    def _channel_message(self, delivery: Any, message: TaskMessage, queue: str) -> Request | None:
        """Return the request of a message that was sent to a channel."""
        channel = self._channels[queue]
        if self._signing is not None:
            body = raw_body(message) if message.content_type == CONTENT_TYPE else b""
            self._signing.check_task(queue, message.headers.get("id"), body)
            message.headers = {name: message.headers[name] for name in _HARMLESS if name in message.headers}
            if "retries" in message.headers:
                message.headers["retries"] = 0  # only retries of the consumer's task count
        content = self._encryption.open_content(queue, content_of(message, channel))
        mine = Message(content, channel, self._layer)
        resolved = self._tasks.resolve(mine)
        if resolved is None:
            log_unrouted(mine)
            self._source.drop(delivery)
            return None
        if self._source.is_expired(delivery, message):
            self._expire(delivery, mine)
            return None
        task, kwargs, ordered = resolved
        if not ordered:
            report_done(mine)
        return self._request(delivery, message, mine, task, kwargs)

    def _retry(self, delivery: Any, message: Any, queue: str) -> Request | None:
        """Return the request of a retry of a consumer's task."""
        name = message.headers.get("task")
        task: Any = self._tasks.app.tasks.get(name)
        channel = self._channels.get(queue)
        if not isinstance(task, ConsumerTask) or task.layer is not self._layer or channel is None:
            raise ValueError(f"it is for the task {name!r}, which is no consumer of the layer {self._layer.alias!r}")
        args, kwargs, _ = payload_of(message)
        if not (isinstance(args, (list, tuple)) and len(args) == 2 and isinstance(kwargs, dict)):
            raise ValueError(f"the arguments of the task {name!r} are not a channel and its message")
        if self._signing is not None:
            self._signing.check_call(name, message.headers.get("id"), args, kwargs, message.headers.get(HEADER))
        mine = Message(self._encryption.open_content(queue, args[1]), args[0], self._layer)
        if self._source.is_expired(delivery, message):
            self._expire(delivery, mine)
            return None
        return self._request(delivery, message, mine, task, kwargs)

    def _expire(self, delivery: Any, mine: Message) -> None:
        """Drop an expired message; its socket continues without it, and its HTTP client stops waiting."""
        channel = mine.channel_name
        logger.warning(
            "channel %s: a message expired before a worker took it", channel,
            extra={"action": "message_expired", "channel": channel},
        )  # fmt: skip
        report_failed(mine)
        self._source.drop(delivery)

    def _request(
        self, delivery: Any, message: Any, mine: Message, task: ConsumerTask, kwargs: dict[str, Any]
    ) -> Request:
        headers = message.headers
        identity = headers.get("id")
        if not isinstance(identity, str):
            raise ValueError("it has no id")
        mine.id = identity
        mine.is_redelivered = self._source.is_redelivered(delivery, message)
        retries = headers.get("retries")
        if type(retries) is int and retries:
            mine._run.retries = retries
        request = Request(self._profile(task), self._source, delivery, mine, {**kwargs}, self._events, headers)
        request.expires_at = moment_of(headers.get("expires"), "expires")
        eta = moment_of(headers.get("eta"), "eta")
        request.due = eta.timestamp() if eta is not None else 0.0
        return request

    def _profile(self, task: ConsumerTask) -> TaskProfile:
        """Return the profile of a consumer's task, updated once per poll."""
        name = str(task.name)
        profile = self._profiles.get(name)
        if profile is None:
            profile = self._profiles[name] = TaskProfile(task)
            profile.fields = {
                "headers": {},  # there are no publisher's headers, and this saves Celery the search
                "properties": {},
                "reply_to": None,
                "hostname": self._hostname,
                "is_eager": False,
                "argsrepr": "(…)",  # content stays out of logs; see task.shown()
                "kwargsrepr": "{…}",
            }
        if name not in self._looked_at:
            self._looked_at.add(name)
            profile.look()
            profile.is_handed_over = self._pool_keeps_limits and bool(task.time_limit or task.soft_time_limit)
        return profile

    # -- Announcing a message

    def _look(self) -> None:
        """Read the settings that may change between polls."""
        self._looked_at.clear()
        self._events = self._every_event if self._every_event.enabled else None
        self._tells = (
            self._events is not None
            or bool(signals.task_received.receivers)
            or _received.isEnabledFor(logging.INFO)
            or logger.isEnabledFor(logging.DEBUG)
        )

    def _admit(self, request: Request) -> bool:
        """Register and announce a request; return False if that failed and the message was settled."""
        try:
            request.take()
            if self._tells:
                self._tell(request)
        except BaseException as error:  # for example of a signal's receiver
            request.give_up(error)
            return False
        return True

    def _tell(self, request: Request) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            channel = request.channel_message.channel_name
            extra = {"action": "message_received", "channel": channel}
            logger.debug("%s -> %s [%s]", channel, request.name, request.id, extra=extra)
        if _received.isEnabledFor(logging.INFO):
            self._log(request)
        self._announce(request)

    def _log(self, request: Request) -> None:
        context = {
            "id": request.id,
            "name": request.name,
            "args": request.argsrepr,
            "kwargs": request.kwargsrepr,
            "eta": request.eta,
        }
        _received.info(LOG_RECEIVED, context, extra={"data": context})

    def _announce(self, request: Request) -> None:
        """Announce a received message by Celery's signal and event."""
        if signals.task_received.receivers:
            signals.task_received.send(sender=self._sender, request=request)
        eventer = request.eventer
        if eventer is not None and eventer.enabled and request.task.send_events:
            eventer.send(
                "task-received",
                uuid=request.id,
                name=request.name,
                args=request.argsrepr,
                kwargs=request.kwargsrepr,
                root_id=request.root_id,
                parent_id=request.parent_id,
                retries=request.channel_message._run.retries,
                eta=request.eta and request.eta.isoformat(),
                expires=None if request.expires_at is None else request.expires_at.isoformat(),
            )
