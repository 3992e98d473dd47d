"""The short way of a channel's message through the worker.

Celery's own way makes a request of each message, hands it to the pool with five callbacks and acknowledges it
through the event loop.  Most messages need none of that: a thread takes one after the other and runs its consumer,
with ``task.request``, retries, ``Reject`` and error reports as ever (see :mod:`channelsq.worker.quick`), and what it
sent leaves in one transaction with the acknowledgement.

:class:`Lean` refuses a message for which Celery promises more than that (events, revokes, rate and time limits,
receivers of ``task_received``, a pool that is not known here): it goes Celery's way.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.trace import LOG_RECEIVED

from channelsq.layers.redis import RedisChannelLayer
from channelsq.message import Message
from channelsq.transport import requests
from channelsq.transport.qos import QoS
from channelsq.transport.streams import parse_tag
from channelsq.worker.lanes import Lane, SoloLane, ThreadLane
from channelsq.worker.plan import Plan
from channelsq.worker.prefork import PreforkLane
from channelsq.worker.request import LeanRequest
from channelsq.worker.straight import Straight

if TYPE_CHECKING:
    from channelsq.worker.consumers import ConsumerTasks

#: Celery's own, so that its messages stay where people look for them.
_received = logging.getLogger("celery.worker.strategy")


class Lean:
    """Decides for one worker which messages may go the short way.

    Args:
        app: the Celery app.
        consumer: the worker's consumer (``celery.worker.consumer.Consumer``).
        layer: one of those that are on the worker's broker.
        tasks: the consumers of each.
        lane: where requests are run.
    """

    def __init__(
        self, app: Any, consumer: Any, layer: RedisChannelLayer, tasks: Sequence[ConsumerTasks], lane: Lane
    ) -> None:
        self._consumer = consumer
        self._straight = Straight(self, tasks)
        self._render = layer.sender.render
        self._lane = lane
        #: The worker's.
        self.eventer = consumer.event_dispatcher
        self._revoked = consumer.controller.state.revoked
        conf = app.conf
        #: Settings that concern every task, of which the short way does not take care.
        self._limits = bool(
            conf.task_time_limit or conf.task_soft_time_limit or conf.worker_deduplicate_successful_tasks
        )
        self._processes = isinstance(lane, PreforkLane)
        self._does_info = _received.isEnabledFor(logging.INFO)
        self._plain: dict[str, bool] = {}
        self._plans: dict[str, Plan] = {}

    def take(self, message: Any, task: Any, payload: list[Any], mine: Message) -> bool:
        """Have the message handled, if it may go the short way; else nothing is done."""
        channel = message.channel
        qos = getattr(channel, "qos", None)
        headers = message.headers
        held = parse_tag(str(message.delivery_tag))
        if (
            not isinstance(qos, QoS)
            or held is None
            or not self.is_open()
            or "retries" in headers  # only what the short form carries has no more to it than this knows
            or (self._processes and "redelivered" in headers)  # what may kill its process shall be alone in it
            or self.is_revoked(headers["id"])
            or not self.may_take(task)
        ):
            return False
        if channel.render is None:
            channel.render = self._render
            channel.straight = self._straight
        mine.id = headers["id"]
        mine.is_redelivered = "redelivered" in headers
        plan = self.plan(task)
        plan.look()
        tag = message.delivery_tag
        self.start(LeanRequest(plan, qos, *held, tag, mine, payload[1], message, self.eventer))
        return True

    def start(self, request: LeanRequest) -> None:
        """Have a message handled that may go the short way."""
        if self._does_info:
            context = {
                "id": request.id,
                "name": request.name,
                "args": request.argsrepr,
                "kwargs": request.kwargsrepr,
                "eta": None,
            }
            _received.info(LOG_RECEIVED, context, extra={"data": context})
        request.reserve()
        self._lane.put(request)

    # -- what may go the short way

    def is_open(self) -> bool:
        """Whether any message may."""
        consumer, eventer = self._consumer, self.eventer
        return (
            not consumer.on_task_message
            and not signals.task_received.receivers
            and not (eventer is not None and eventer.enabled and (not eventer.groups or "task" in eventer.groups))
            and not (consumer.restart_count and not consumer._maximum_prefetch_restored)
        )

    def is_revoked(self, identity: str) -> bool:
        """Whether the message with this id may not, since it was revoked."""
        return identity in self._revoked

    @property
    def has_revoked(self) -> bool:
        """Whether any id was revoked."""
        return len(self._revoked) > 0

    def may_take(self, task: Any) -> bool:
        """Whether a task's messages may."""
        return (
            not self._consumer.task_buckets.get(task.name)
            and not (task.time_limit or task.soft_time_limit)  # which may be set while the worker runs
            and self._is_plain(task)
        )

    def _is_plain(self, task: Any) -> bool:
        """Whether the task has no classes of its own for what is done about it."""
        try:
            return self._plain[task.name]
        except KeyError:
            plain = self._plain[task.name] = (
                not self._limits
                and task.Strategy == "celery.worker.strategy:default"
                and task.Request in (requests.DEFAULT, requests.NAME)
                and (task.acks_late or not self._processes)
            )
            return plain

    def plan(self, task: Any) -> Plan:
        """How a task's consumer is run; to be looked at before use."""
        try:
            return self._plans[task.name]
        except KeyError:
            plan = self._plans[task.name] = Plan(task)
            plan.fields = {
                "ignore_result": task.ignore_result,
                "headers": {},  # of the publisher's own there are none, and Celery need not look for them
                "properties": {},
                "reply_to": None,
                "hostname": self._consumer.hostname,
                "is_eager": False,
                "argsrepr": "(…)",  # content stays out of logs; see quick.told()
                "kwargsrepr": "{…}",
            }
            return plan


#: Of each worker of this process, with the number of its consumer's restarts; there is more than one worker in tests
#: only.
_leans: weakref.WeakKeyDictionary[Any, tuple[int, Lean | None]] = weakref.WeakKeyDictionary()


def lean_of(app: Any, consumer: Any, tasks: ConsumerTasks, every: Iterable[ConsumerTasks]) -> Lean | None:
    """Return what decides for a worker; None if every message of a layer goes Celery's way.

    It is a new one, with a new lane, after each restart of the worker's consumer.  When Celery has lost its broker, it
    drops what waits in the event loop, its timer and the pool's semaphore, the lane's callbacks included, and makes a
    new event dispatcher.  What the old lane still has is of a closed channel: it begins nothing more.

    Args:
        tasks: that layer's consumers.
        every: those of all the worker's layers.
    """
    if not _is_on_streams(tasks):
        return None
    restarts, lean = _leans.get(consumer, (None, None))
    if restarts != consumer.restart_count:
        lean = _make(app, consumer, [each for each in every if _is_on_streams(each)])
        _leans[consumer] = consumer.restart_count, lean
    return lean


def _is_on_streams(tasks: ConsumerTasks) -> bool:
    channel_layer = tasks.layer.channel_layer
    return isinstance(channel_layer, RedisChannelLayer) and channel_layer.streams


def _make(app: Any, consumer: Any, tasks: Sequence[ConsumerTasks]) -> Lean | None:
    channel_layer = tasks[0].layer.channel_layer
    assert isinstance(channel_layer, RedisChannelLayer)
    kind = type(consumer.pool).__module__.rpartition(".")[2]
    if kind == "solo":
        return Lean(app, consumer, channel_layer, tasks, SoloLane())
    if kind == "thread":
        lane = ThreadLane(consumer.pool.executor, consumer.pool.limit, consumer.hub)
        return Lean(app, consumer, channel_layer, tasks, lane)
    if kind == "prefork" and consumer.hub is not None:
        return Lean(app, consumer, channel_layer, tasks, PreforkLane(consumer))
    return None
