"""Channel messages straight from the transport, past Kombu's message and Celery's search for a task.

:class:`Straight` takes what goes the short way anyway; everything else is delivered as ever.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from channelsq.layers import codec
from channelsq.message import Message
from channelsq.transport.codec import ForeignPayload, Payload, decode, decode_compact
from channelsq.transport.consuming import ConsumingChannel
from channelsq.transport.streams import Entry
from channelsq.worker.execution import report_done
from channelsq.worker.task import ChannelTask

if TYPE_CHECKING:
    from channelsq.worker.lean import Lean
    from channelsq.worker.setup import ConsumerTasks

logger = logging.getLogger("channelsq.worker")

#: How a message in the transport's compact form begins: a msgpack list of four.
_COMPACT = 0x94


class Taken:
    """A message that is not Kombu's, with what the transport, Celery and a request ask of one."""

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
        """The payload, for who gives the message back."""
        payload = decode(self.entry.data)
        payload["properties"]["delivery_tag"] = self.delivery_tag
        return payload

    def reject_log_error(self, log: Any, errors: tuple[type[Exception], ...], requeue: bool = False) -> None:
        """As Kombu's: a lost connection is logged, as the message comes again with it."""
        try:
            self.channel.qos.reject(self.delivery_tag, requeue=requeue)
        except errors as error:
            log.critical("Couldn't reject %r, reason: %r", self.delivery_tag, error, exc_info=True)


class Straight:
    """Takes entries of a layer's channels.

    Args:
        lean: decides which may be taken, and has them run.
        tasks: the layer's consumers.
    """

    def __init__(self, lean: Lean, tasks: ConsumerTasks) -> None:
        self._lean = lean
        self._tasks = tasks
        self._layer = tasks.layer
        self._channels = {
            name
            for name, task in tasks.app.tasks.items()
            if isinstance(task, ChannelTask) and task.layer is tasks.layer
        }

    def __call__(self, channel: ConsumingChannel, queue: str, entry: Entry) -> bool:
        """Have the entry's message handled; false, and nothing is done, if it must be delivered as ever."""
        if queue not in self._channels or not entry.data or entry.data[0] != _COMPACT:
            return False
        try:
            name, identity, body, lifetime = decode_compact(entry.data)
            (sent_to, content), _, embed = codec.loads(body)
        except (ForeignPayload, TypeError, ValueError):
            return False
        if name != queue or sent_to != queue or identity is None or not isinstance(content, dict):
            return False
        if lifetime is not None and int(entry.id.partition("-")[0]) + lifetime <= channel.server_time():
            return False
        mine = Message(content, queue, self._layer)
        resolved = self._tasks.resolve(mine)
        if resolved is None:
            return False
        target, kwargs, ordered = resolved
        headers = {"lang": "py", "task": name, "id": identity, "root_id": identity, "ignore_result": True}
        message = Taken(channel, entry, headers)
        if not self._lean.may_take(message, target):
            return False
        if logger.isEnabledFor(logging.DEBUG):
            extra = {"action": "message_received", "channel": queue}
            logger.debug("%s -> %s [%s]", queue, target.name, identity, extra=extra)
        if not ordered:
            report_done(mine)
        qos = channel.stream_qos
        qos.append(message, message.delivery_tag)
        self._lean.start(message, qos, target, [[queue, content], kwargs, embed], mine)
        return True
