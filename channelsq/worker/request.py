"""A channel's message on the short way: Celery's request for it, and what stands for Kombu's message."""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import Any, ClassVar
from weakref import ref

from celery.worker import state

from channelsq.ending import is_end
from channelsq.layers.direct import Parcel
from channelsq.layers.signing import HEADER
from channelsq.message import Message
from channelsq.transport import requests
from channelsq.transport.codec import Payload, decode
from channelsq.transport.consuming import ConsumingChannel
from channelsq.transport.qos import QoS
from channelsq.transport.streams import Entry
from channelsq.worker import quick
from channelsq.worker.guard import unhandled
from channelsq.worker.plan import Plan

logger = logging.getLogger("channelsq.worker")

# Celery's books of what is reserved and active are weak sets, which look for dead members at every step.  Here each
# request is taken out again by hand, so that it can be put into the set of references below them.
_reserved, _active = state.reserved_requests.data, state.active_requests.data  # type: ignore[attr-defined]


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


class LeanRequest(requests.Request):
    """Celery's request for a channel's message, of which everything is known already.

    What nearly nobody asks for is made when it is asked for.

    Args:
        plan: the consumer's.
        qos: of the broker channel that it came through.
        key, entry: of the transport's entry.
        tag: the delivery tag.
        mine: the message, with its id.
        kwargs: the route's.
        source: Kombu's message, or the entry.
        eventer: the worker's.
    """

    # What no message on the short way has more to say about.
    _terminate_on_ack: Any = None
    _connection_errors = ()
    _utc = _decoded = True
    _content_type = _content_encoding = _parent_id = _eta = _expires = _on_ack = _on_reject = None

    #: What the consumer sent; None for nothing.
    parcel: Parcel | None = None

    #: In a pool of processes: the signals that its process was sent, for whichever request of its batch.
    signals: set[Any] | None = None

    def __init__(
        self,
        plan: Plan,
        qos: QoS,
        key: str,
        entry: str,
        tag: str,
        mine: Message,
        kwargs: dict[str, Any],
        source: Any,
        eventer: Any,
    ) -> None:
        self._plan = plan
        self._qos = qos
        self._key = key
        self._entry = entry
        self._tag = tag
        self._mine = mine
        self._kwargs = kwargs
        self._source = source
        self._eventer = eventer
        self.id = mine.id
        self.name = plan.name  # type: ignore[misc]  # a slot, as Celery's own __init__ has it

    # -- what Celery knows of a request

    @property
    def _message(self) -> Any:
        source = self._source
        if type(source) is Entry:
            headers = {
                "lang": "py",
                "task": self._queue,
                "id": self.id,
                "root_id": self.id,
                "ignore_result": True,
            }
            source = self._source = Taken(self._qos.channel, source, headers)
        return source

    @property
    def _raw(self) -> Payload:
        """The payload, for the QoS that holds this as the message."""
        raw: Payload = self._message._raw
        return raw

    @property
    def death(self) -> str | None:
        """See :func:`channelsq.transport.burial.count_death`."""
        source = self._source
        return None if type(source) is Entry else getattr(source, "death", None)

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
        return self.id

    @property
    def _ignore_result(self) -> Any:
        return self._plan.task.ignore_result

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
        """The name of the queue, which is the name of the task in the message, too."""
        layer: Any = self._mine.channel_layer
        return str(layer.queue_prefix) + self._mine.channel_name

    @property
    def _delivery_info(self) -> dict[str, Any]:
        return {
            "exchange": "",
            "routing_key": self._queue,
            "priority": None,
            "redelivered": "redelivered" in self._message.headers,
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
        """``task.request``."""
        signing = self._mine.channel_layer.channel_layer.signing
        signed = {} if signing is None else {HEADER: signing.call(self._plan.name, self.id, self._args, self._kwargs)}
        return {
            **self._plan.fields,
            **self._message.headers,
            **signed,
            "task": self._plan.name,
            "args": self._args,
            "kwargs": self._kwargs,
            "correlation_id": self.id,
            "delivery_info": self._delivery_info,
        }

    # -- its course

    @property
    def channel(self) -> Any:
        """The broker channel that it came through."""
        return self._qos.channel

    @property
    def abandoned(self) -> bool:
        """Whether it is not to be begun: another worker has it, or soon will, or it was revoked while it waited."""
        if requests.worker_is_ending() or self._qos.channel.closed:
            self._strike_out()
            return True
        return self.id in state.revoked and self.revoked()

    def reserve(self) -> None:
        """Be among what ``inspect reserved`` tells."""
        state.requests[self.id] = self
        _reserved.add(ref(self))

    def _strike_out(self) -> None:
        """Be in none of Celery's books."""
        state.requests.pop(self.id, None)
        me = ref(self)
        _active.discard(me)
        _reserved.discard(me)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """A thread or process begins with it; as Celery's own, without what no message on the short way needs."""
        self._begin(pid, time() - (monotonic() - time_accepted))
        if not self._plan.late:
            self.acknowledge()

    def _begin(self, pid: Any, started: float) -> None:
        self.worker_pid = pid
        self.time_start = started
        _active.add(ref(self))
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    def run(self) -> None:
        """Run the consumer, and do what its outcome asks for; nothing but the end of the worker is raised."""
        try:
            self._run()
        except BaseException as error:
            self.give_up(error)

    def give_up(self, error: BaseException) -> None:
        """Be done with a message whose handling failed outside of its consumer; raise the end of the worker."""
        if is_end(error):
            raise error
        self.parcel = None
        try:
            unhandled(error, self.name, self._mine)
        finally:
            self._strike_out()
            self.acknowledge()

    def _run(self) -> None:
        plan = self._plan
        if not plan.late:
            self._run_at_most_once()
            return
        self._begin(plan.pid, time())
        self.parcel = Parcel(self._mine.channel_layer.channel_layer)  # type: ignore[arg-type]  # it is on streams
        self.finish(quick.run(plan, self._mine, self._kwargs, self.describe, self.parcel))

    def _run_at_most_once(self) -> None:
        """Not begun before Redis knows, nor if another worker has had it."""
        try:
            is_mine = self._qos.channel.acknowledge_now(self._tag)
        except self._qos.channel.connection_errors as error:
            # Redis knows whether it is acknowledged; if so, this does nothing.
            logger.warning("%s was not begun: %s", self.humaninfo(), error, extra={"action": "not_begun"})
            self.give_back()
            return
        if not is_mine:
            self.acknowledge()
            state.task_ready(self, successful=False)
            return
        self.on_accepted(self._plan.pid, monotonic())
        self.finish(quick.run(self._plan, self._mine, self._kwargs, self.describe))

    def finish(self, failure: quick.Failure | None) -> None:
        """Do what the outcome asks for."""
        if failure is not None:
            self.on_success(failure)  # which knows what to do about a failure
            return
        self._strike_out()
        self.acknowledge()

    def acknowledge(self) -> None:
        """The message is done with; what its consumer sent goes out in the same transaction."""
        if not self.acknowledged:
            self.acknowledged = True
            parcel = self.parcel
            if parcel is not None and not (parcel.envelopes or parcel.commands):
                parcel = None
            self._qos.settle(self._key, self._entry, self._tag, parcel)

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

    # -- in a pool of processes

    def give_back(self) -> None:
        """Have it handled once more."""
        self._strike_out()
        self.reject(requeue=True)

    def context(self) -> dict[str, Any]:
        """``task.request`` for a child process, without what goes there anyway or must stay here."""
        return {key: value for key, value in self.describe().items() if key not in ("args", "kwargs", "properties")}

    def in_job(self, result: Any) -> None:
        """Note the pool's job that it is in, for those who want to end it."""
        self._apply_result = ref(result)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """See Celery's."""
        super().terminate(self._once(pool, signal), signal)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:  # type: ignore[override]
        """See Celery's."""
        super().cancel(self._once(pool, signal), signal, **options)

    def _once(self, pool: Any, signal: Any) -> Any:
        """The pool, or one that sends no signal if the process has had this one for another request of its batch: it
        would end in the middle of its cleanup.
        """
        signals = self.signals
        if signals is None or not self.time_start:
            return pool
        if signal in signals:
            return _Told
        signals.add(signal)
        return pool


class _Told:
    """A stand-in for a pool whose process was told to end."""

    @staticmethod
    def terminate_job(pid: Any, signal: Any = None) -> None:
        """Do nothing."""
