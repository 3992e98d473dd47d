"""Channel messages straight from the transport, past Kombu's message and Celery's search for a task.

:class:`Straight` takes what goes the short way anyway; everything else is delivered as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from channelsq.layers import codec
from channelsq.message import Message
from channelsq.transport.codec import ForeignPayload, decode_compact
from channelsq.transport.consuming import ConsumingChannel, Take
from channelsq.transport.qos import QoS
from channelsq.transport.streams import Entry
from channelsq.worker.execution import report_done
from channelsq.worker.plan import Plan
from channelsq.worker.request import LeanRequest
from channelsq.worker.task import ChannelTask

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.layers.signing import Signing
    from channelsq.worker.consumers import ConsumerTasks
    from channelsq.worker.lean import Lean

logger = logging.getLogger("channelsq.worker")

#: How a message in the transport's compact form begins: a msgpack list of four.
_COMPACT = 0x94

_NONE_ALIVE = "", -1


class _Source(NamedTuple):
    """What is known of one queue."""

    channel: str
    layer: ChannelLayerWrapper
    tasks: ConsumerTasks
    #: The layer's.
    signing: Signing | None
    #: The plans of the layer's consumers in this turn, by their id; None for one whose messages may not go the
    #: short way.
    plans: dict[int, Plan | None]


class Straight:
    """Takes entries of the channels of layers.

    What can only change in the worker's event loop is looked at once a turn of it.

    Args:
        lean: decides which may be taken, and has them run.
        tasks: each layer's consumers.
    """

    def __init__(self, lean: Lean, tasks: Iterable[ConsumerTasks]) -> None:
        self._lean = lean
        self._plans: list[dict[int, Plan | None]] = []
        #: By the name of the queue.
        self._sources: dict[str, _Source] = {}
        for each in tasks:
            plans: dict[int, Plan | None] = {}
            self._plans.append(plans)
            for queue, task in each.app.tasks.items():
                if isinstance(task, ChannelTask) and task.layer is each.layer:
                    self._sources[queue] = _Source(
                        task.channel, each.layer, each, each.layer.channel_layer.signing, plans
                    )
        # Of the turn:
        self._qos: QoS
        self._now = 0
        self._revoked = False
        self._told = False
        #: An entry that was found to be alive, and the lifetime of its message: in the same turn a younger one with
        #: the same is alive, too.
        self._alive: tuple[str, int] = _NONE_ALIVE

    def __call__(self, channel: ConsumingChannel) -> Take | None:
        """What takes entries in this turn of the event loop; None if none may go the short way."""
        lean = self._lean
        if not lean.is_open():
            return None
        self._qos = channel.stream_qos
        self._now = channel.server_time()
        self._revoked = lean.has_revoked
        self._told = logger.isEnabledFor(logging.DEBUG)
        for plans in self._plans:
            plans.clear()
        self._alive = _NONE_ALIVE
        return self._take

    def _take(self, queue: str, entry: Entry) -> bool:
        """Have the entry's message handled; false, and nothing is done, if it must be delivered as ever."""
        key, identity, data, _, _ = entry
        source = self._sources.get(queue)
        if source is None or not data or data[0] != _COMPACT:
            return False
        channel, layer, tasks, signing, plans = source
        try:
            name, message_id, body, lifetime = decode_compact(data)
            (sent_to, content), _, _ = codec.loads(body)
        except (ForeignPayload, TypeError, ValueError):
            return False
        if name != queue or sent_to != channel or message_id is None or type(content) is not dict:
            return False
        if signing is not None and not signing.is_signed(queue, message_id, body):
            return False
        if lifetime is not None:
            oldest, same = self._alive
            if lifetime != same or identity < oldest:
                if int(identity.partition("-")[0]) + lifetime <= self._now:
                    return False
                self._alive = identity, lifetime
        try:
            mine = Message(content, channel, layer)
            resolved = layer.router.resolve(mine)
        except (TypeError, ValueError):  # none of ours has such a value
            return False
        if resolved is None:
            return False
        route, kwargs = resolved
        try:
            plan = plans[id(route.consumer)]
        except KeyError:
            plan = plans[id(route.consumer)] = self._plan(tasks, route.consumer)
        if plan is None or (self._revoked and self._lean.is_revoked(message_id)):
            return False
        mine.id = message_id
        if self._told:
            extra = {"action": "message_received", "channel": channel}
            logger.debug("%s -> %s [%s]", channel, plan.name, message_id, extra=extra)
        if not route.ordered:
            report_done(mine)
        tag = f"{identity} {key}"  # as Entry.tag
        qos = self._qos
        own = {**kwargs} if kwargs else {}
        request = LeanRequest(plan, qos, key, identity, tag, mine, own, entry, self._lean.eventer)
        qos.deliver(request, tag)
        self._lean.start(request)
        return True

    def _plan(self, tasks: ConsumerTasks, consumer: Any) -> Plan | None:
        """The plan of a consumer for this turn."""
        task = tasks.task_of(consumer)
        plan = None
        if self._lean.may_take(task):
            plan = self._lean.plan(task)
            plan.look()
        return plan
