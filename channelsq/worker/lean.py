"""The short way of a channel's message through the worker.

Celery's own way makes a request of each message, hands it to the pool with five callbacks and acknowledges it
through the event loop.  Most messages need none of that: a thread takes one after the other and runs its consumer,
with ``task.request``, retries, ``Reject`` and error reports as ever (see :mod:`channelsq.worker.quick`), and what it
sent leaves in one transaction with the acknowledgement.

:meth:`Lean.may_take` refuses a message for which Celery promises more than that (events, revokes, rate and time
limits, receivers of ``task_received``, a pool that is not known here): it goes Celery's way.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.trace import LOG_RECEIVED
from celery.worker import state

from channelsq.layers.direct import Parcel, collecting
from channelsq.layers.redis import RedisChannelLayer
from channelsq.message import Message
from channelsq.transport import requests
from channelsq.transport.qos import QoS
from channelsq.worker import quick
from channelsq.worker.lanes import Lane, SoloLane, ThreadLane
from channelsq.worker.prefork import PreforkLane
from channelsq.worker.straight import Straight

if TYPE_CHECKING:
    from channelsq.worker.setup import ConsumerTasks

#: Celery's own, so that its messages stay where people look for them.
_received = logging.getLogger("celery.worker.strategy")

logger = logging.getLogger("channelsq.worker")


class LeanRequest(requests.Request):
    """Celery's request for a channel's message, of which everything is known already."""

    # What no message on the short way has more to say about.
    _terminate_on_ack: Any = None
    _connection_errors = ()
    _utc = _decoded = True
    _content_type = _content_encoding = _parent_id = _eta = _expires = _on_ack = _on_reject = None

    def __init__(
        self, message: Any, qos: QoS, task: Any, payload: list[Any], mine: Message, fields: dict[str, Any], eventer: Any
    ) -> None:
        self._message = message
        self._mine = mine
        self._qos = qos
        self._task = task
        self._eventer = eventer
        self._body = payload
        self.id = identity = message.headers["id"]
        self._type = self.name = task.name  # type: ignore[misc]  # a slot, as Celery's own __init__ has it
        self._args, self._kwargs, _ = payload
        self._request_dict = {
            **fields,
            **message.headers,
            "task": task.name,
            "args": self._args,
            "kwargs": self._kwargs,
            "correlation_id": identity,
            "delivery_info": {
                "exchange": "",
                "routing_key": self._args[0],
                "priority": None,
                "redelivered": "redelivered" in message.headers,
            },
        }
        self.parcel = Parcel()

    @property
    def _Request__payload(self) -> list[Any]:
        return self._body

    @property
    def _app(self) -> Any:
        return self._task.app

    @property
    def _hostname(self) -> Any:
        return self._request_dict["hostname"]

    @property
    def _root_id(self) -> Any:
        return self.id

    @property
    def _ignore_result(self) -> Any:
        return self._task.ignore_result

    @property
    def _delivery_info(self) -> Any:
        return self._request_dict["delivery_info"]

    @property
    def _argsrepr(self) -> str:
        return quick.told(self._args, self._kwargs)["argsrepr"]

    @property
    def _kwargsrepr(self) -> str:
        return quick.told(self._args, self._kwargs)["kwargsrepr"]

    def acknowledge(self) -> None:
        """The message is done with; what its consumer sent goes out in the same transaction."""
        if not self.acknowledged:
            self.acknowledged = True
            self._qos.settle(self._message.delivery_tag, self.parcel or None)

    def reject(self, requeue: bool = False) -> None:
        """The message is not wanted; with ``requeue`` it comes again."""
        if self.acknowledged:
            return
        if not requeue:
            self.acknowledge()
        else:
            self.acknowledged = True
            self._message.reject_log_error(logger, self._qos.channel.connection_errors, requeue=True)
        self.send_event("task-rejected", requeue=requeue)

    @property
    def channel(self) -> Any:
        """The broker channel that it came through."""
        return self._qos.channel

    @property
    def abandoned(self) -> bool:
        """Whether it is not to be begun: another worker has it, or soon will, or it was revoked while it waited."""
        if _set(state.should_stop) or _set(state.should_terminate) or self._qos.channel.closed:
            return True
        return self.id in state.revoked and self.revoked()

    def reserve(self) -> None:
        """Be among what ``inspect reserved`` tells."""
        state.requests[self.id] = self
        state.reserved_requests.add(self)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """A thread or process begins with it; as Celery's own, without what no message on the short way needs."""
        self.worker_pid = pid
        self.time_start = time.time() - (time.monotonic() - time_accepted)
        state.active_requests.add(self)
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if not self._task.acks_late:
            self.acknowledge()
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    def run(self) -> None:
        """Run the consumer, and do what its outcome asks for."""
        task = self._task
        # At most once: not begun before Redis knows, nor if another worker has had it.
        if not task.acks_late and not self._qos.channel.acknowledge_now(self._message.delivery_tag):
            self.acknowledge()
            state.task_ready(self, successful=False)
            return
        self.on_accepted(os.getpid(), time.monotonic())
        if not task.acks_late:
            outcome = quick.run(task, self.id, self._args, self._kwargs, self._request_dict, self._mine)
        else:
            with collecting(self.parcel):
                outcome = quick.run(task, self.id, self._args, self._kwargs, self._request_dict, self._mine)
        result, info, runtime, _ = outcome
        self.finish(None if info is None else (1, result, runtime))

    def finish(self, failure: tuple[int, Any, float] | None) -> None:
        """Do what the outcome asks for: None for success, else what Celery's tracer gave."""
        if failure is not None:
            self.on_success(failure)  # which knows what to do about a failure
            return
        state.requests.pop(self.id, None)
        state.active_requests.discard(self)
        state.reserved_requests.discard(self)
        self.acknowledge()

    def context(self) -> dict[str, Any]:
        """``task.request`` for a child process, without what goes there anyway or must stay here."""
        return {key: value for key, value in self._request_dict.items() if key not in ("args", "kwargs", "properties")}

    def in_job(self, result: Any) -> None:
        """Note the pool's job that it is in, for those who want to end it."""
        self._apply_result = weakref.ref(result)


def _set(flag: Any) -> bool:
    # An exit code of 0 means "stop", as celery.worker.state.maybe_shutdown has it.
    return flag is not None and flag is not False


class Lean:
    """Decides for one worker which messages may go the short way.

    Args:
        app: the Celery app.
        consumer: the worker's consumer (``celery.worker.consumer.Consumer``).
        layer: the layer of the channels.
        tasks: its consumers.
        lane: where requests are run.
    """

    def __init__(self, app: Any, consumer: Any, layer: RedisChannelLayer, tasks: ConsumerTasks, lane: Lane) -> None:
        self._consumer = consumer
        self._straight = Straight(self, tasks)
        self._render = layer.sender.render
        self._lane = lane
        self._eventer = consumer.event_dispatcher
        self._revoked = consumer.controller.state.revoked
        conf = app.conf
        #: Settings that concern every task, of which the short way does not take care.
        self._limits = bool(
            conf.task_time_limit or conf.task_soft_time_limit or conf.worker_deduplicate_successful_tasks
        )
        self._processes = isinstance(lane, PreforkLane)
        self._does_info = _received.isEnabledFor(logging.INFO)
        self._plain: dict[str, bool] = {}
        self._fields: dict[str, dict[str, Any]] = {}

    def take(self, message: Any, task: Any, payload: list[Any], mine: Message) -> bool:
        """Have the message handled, if it may go the short way; else nothing is done."""
        channel = message.channel
        qos = getattr(channel, "qos", None)
        if not isinstance(qos, QoS) or not self.may_take(message, task):
            return False
        if channel.render is None:
            channel.render = self._render
            channel.straight = self._straight
        self.start(message, qos, task, payload, mine)
        return True

    def start(self, message: Any, qos: QoS, task: Any, payload: list[Any], mine: Message) -> None:
        """Have a message handled that may go the short way."""
        mine.id = message.headers["id"]
        fields = self._fields.get(task.name) or self._make_fields(task)
        request = LeanRequest(message, qos, task, payload, mine, fields, self._eventer)
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

    def _make_fields(self, task: Any) -> dict[str, Any]:
        """What ``task.request`` says of every message of a task."""
        fields = self._fields[task.name] = {
            "ignore_result": task.ignore_result,
            "headers": {},  # of the publisher's own there are none, and Celery need not look for them
            "properties": {},
            "reply_to": None,
            "hostname": self._consumer.hostname,
            "is_eager": False,
            "argsrepr": "(…)",  # content stays out of logs; see quick.told()
            "kwargsrepr": "{…}",
        }
        return fields

    def may_take(self, message: Any, task: Any) -> bool:
        """Whether a message may go the short way."""
        consumer = self._consumer
        headers = message.headers
        eventer = self._eventer
        return (
            not consumer.on_task_message
            and "retries" not in headers  # only what the short form carries has no more to it than this knows
            and not signals.task_received.receivers
            and not (eventer is not None and eventer.enabled and (not eventer.groups or "task" in eventer.groups))
            and headers["id"] not in self._revoked
            and not (self._processes and "redelivered" in headers)  # what may kill its process shall be alone in it
            and not consumer.task_buckets.get(task.name)
            and not (task.time_limit or task.soft_time_limit)  # which may be set while the worker runs
            and not (consumer.restart_count and not consumer._maximum_prefetch_restored)
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


#: Of each worker of this process; there is more than one in tests only.
_leans: weakref.WeakKeyDictionary[Any, Lean | None] = weakref.WeakKeyDictionary()


def lean_of(app: Any, consumer: Any, tasks: ConsumerTasks) -> Lean | None:
    """What decides for a worker; None if every message goes Celery's way."""
    try:
        return _leans[consumer]
    except KeyError:
        lean = _leans[consumer] = _make(app, consumer, tasks)
        return lean


def _make(app: Any, consumer: Any, tasks: ConsumerTasks) -> Lean | None:
    channel_layer = tasks.layer.channel_layer
    if not isinstance(channel_layer, RedisChannelLayer) or not channel_layer.streams:
        return None
    kind = type(consumer.pool).__module__.rpartition(".")[2]
    if kind == "solo":
        return Lean(app, consumer, channel_layer, tasks, SoloLane())
    if kind == "thread":
        lane = ThreadLane(consumer.pool.executor, consumer.pool.limit, consumer.hub)
        return Lean(app, consumer, channel_layer, tasks, lane)
    if kind == "prefork" and consumer.hub is not None:
        return Lean(app, consumer, channel_layer, tasks, PreforkLane(consumer))
    return None
