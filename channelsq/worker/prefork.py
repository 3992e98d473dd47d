"""The short way through a pool of processes: messages travel to a child, and outcomes back, in batches.

What a job costs Celery's prefork pool (two locks, two pipes, four events) is many times what a quick consumer
costs, so a child is given as many messages as it is expected to handle within :data:`SLICE`.  What they sent comes
back with the outcomes, and leaves the parent in one transaction with the acknowledgements.  Slow consumers are
given one message at a time, as Celery does it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from celery import current_app

from channelsq.ending import forget_signal, is_end, signal_has_ended_process
from channelsq.layers.direct import Parcel
from channelsq.message import Message
from channelsq.worker import quick
from channelsq.worker.guard import unhandled
from channelsq.worker.plan import Plan

logger = logging.getLogger("channelsq.worker")

#: Seconds of work that a batch may be expected to take: so long may a quick message wait for those before it.
SLICE = 0.002

#: Messages that a batch holds at most.
LARGEST = 64


class Item(NamedTuple):
    """A message on its way to a child."""

    task: str
    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    request: dict[str, Any]


class Outcome(NamedTuple):
    """What became of a message."""

    #: What its consumer sent.
    parcel: Parcel
    #: How long it took, in seconds.
    seconds: float
    #: As Celery's tracer has it; None for success.
    failure: quick.Failure | None = None


#: Of this child's tasks.
_plans: dict[str, Plan] = {}


class BatchCut(SystemExit):
    """The end of a child's process in the middle of a batch, with the outcomes of what was done before.

    Billiard hands it to the parent, from its version 4.3 on, and ends the process.
    """

    def __init__(self, outcomes: list[Outcome], code: Any = 0) -> None:
        super().__init__(code)
        self.outcomes = outcomes

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.outcomes, self.code)


def run_batch(items: list[Item]) -> list[Outcome]:
    """In a child: run consumers one after the other.

    Returns:
        an outcome for each item that was begun: all of them, unless the handling of one failed outside of its
        consumer.

    Raises:
        BatchCut: the process ends, as it was told to.
    """
    outcomes: list[Outcome] = []
    looked_at: set[str] = set()
    ended = time.monotonic()
    for name, identity, (channel, content), kwargs, request in items:
        begun, parcel = ended, Parcel()
        message = None
        try:
            plan = _plans.get(name) or _plans.setdefault(name, Plan(current_app.tasks[name]))
            if plan.layer is not None:
                parcel.layer = plan.layer.channel_layer
            if name not in looked_at:
                looked_at.add(name)
                plan.look()
            message = Message(content, channel, plan.layer)
            message.id = identity
            failure = quick.run(plan, message, kwargs, request.copy, parcel)
        except BaseException as error:
            if is_end(error):
                raise _cut(outcomes, error) from None
            outcomes.append(Outcome(Parcel(), 0.0, (1, unhandled(error, name, message), 0.0)))
            break
        ended = time.monotonic()
        outcomes.append(Outcome(parcel, ended - begun, failure))
        if signal_has_ended_process():  # the consumer did not let SystemExit end it
            raise _cut(outcomes, SystemExit())
    return outcomes


def _cut(outcomes: list[Outcome], error: BaseException) -> BatchCut:
    forget_signal()
    return BatchCut(outcomes, getattr(error, "code", 0))


class PreforkLane:
    """Runs requests in the processes of a pool.

    Args:
        consumer: the worker's consumer; it needs an event loop.
    """

    def __init__(self, consumer: Any) -> None:
        self._pool = consumer.pool
        self._hub = consumer.hub
        controller = consumer.controller
        self._acquire, self._release = controller._quick_acquire, controller._quick_release
        self._backlog: deque[Any] = deque()  # bounded by the worker's prefetch count
        self._asked = 0  # jobs that wait for a free process
        self._woken = False
        self._paces: dict[str, float] = {}  # seconds that a message of each task takes, on average

    def put(self, request: Any) -> None:
        """Have it run, with what else the event loop brings in this turn."""
        self._backlog.append(request)
        if not self._woken:
            self._woken = True
            self._hub.call_soon(self._distribute)

    def _distribute(self) -> None:
        self._woken = False
        wanted = min(len(self._backlog), self._pool.limit)
        for _ in range(wanted - self._asked):  # some of these jobs begin at once
            self._asked += 1
            self._acquire(self._send)

    def _take(self) -> list[Any]:
        """The next batch: as much as is expected to take a slice, and not more than this process's share."""
        batch: list[Any] = []
        share = min(-(-len(self._backlog) // self._pool.limit), LARGEST)
        seconds = 0.0
        while self._backlog and len(batch) < share:
            seconds += self._paces.get(self._backlog[0].type, SLICE)
            if batch and seconds > SLICE:
                break
            request = self._backlog.popleft()
            if not request.abandoned:
                batch.append(request)
        return batch

    def _send(self) -> None:
        """A process is free: give it a batch."""
        self._asked -= 1
        batch = self._take()
        if not batch:
            self._release()
            return

        def accepted(pid: int, at: float) -> None:
            for request in batch:
                request.on_accepted(pid, at)

        def done(outcomes: list[Outcome]) -> None:
            self._done(batch, outcomes)

        def failed(error: ExceptionInfo) -> None:
            cause = getattr(error.exception, "exc", error.exception)
            if isinstance(cause, BatchCut):
                self._cut(batch, cause.outcomes)
            else:
                self._lost(batch, error, cause)

        try:
            items = [Item(r.type, r.id, r.args, r.kwargs, r.context()) for r in batch]
            result = self._pool.apply_async(
                run_batch, (items,), accept_callback=accepted, callback=done, error_callback=failed
            )
        except Exception:  # out of memory, say
            logger.exception("a batch of messages could not be given out", extra={"action": "run_failed"})
            self._backlog.extendleft(reversed(batch))
            self._release()
            return
        signals: set[Any] = set()
        for request in batch:
            request.in_job(result)
            request.signals = signals

    def _done(self, batch: list[Any], outcomes: list[Outcome]) -> None:
        self._conclude(batch, outcomes)
        self._put_off(batch[len(outcomes) :])
        self._go_on()

    def _cut(self, batch: list[Any], outcomes: list[Outcome]) -> None:
        """The process was ended in the middle of a batch, and has told what it had done before."""
        self._conclude(batch, outcomes)
        begun = len(outcomes) + 1
        self._interrupted(batch[begun - 1 : begun])
        # A cancelled request is given back with the channel, as running ones are.
        self._put_off([each for each in batch[begun:] if not (each.acknowledged or each._already_cancelled)])
        self._go_on()

    def _lost(self, batch: list[Any], error: ExceptionInfo, cause: BaseException | None) -> None:
        """The process has ended, and has not told how far it had got."""
        if isinstance(cause, Terminated):
            self._interrupted(batch)
        else:
            for request in batch:
                if not request.acknowledged:
                    try:
                        request.on_failure(error)
                    except BaseException as raised:
                        request.give_up(raised)
        self._go_on()

    def _conclude(self, batch: list[Any], outcomes: list[Outcome]) -> None:
        for request, outcome in zip(batch, outcomes, strict=False):
            self._learn(request.type, outcome.seconds)
            if request.acknowledged:  # it was revoked meanwhile
                continue
            request.parcel = outcome.parcel
            try:
                request.finish(outcome.failure)
            except BaseException as raised:
                request.give_up(raised)

    def _put_off(self, batch: list[Any]) -> None:
        """Have requests run with others, as they were not begun."""
        for request in batch:
            request.time_start = None
        self._backlog.extend(batch)

    def _interrupted(self, batch: list[Any]) -> None:
        """Have requests handled once more, unless their process was ended because they were revoked or cancelled."""
        for request in batch:
            if not (request.acknowledged or request._already_cancelled):
                request.give_back()

    def _learn(self, task: str, seconds: float) -> None:
        pace = self._paces.get(task)
        if pace is None:
            self._paces[task] = seconds
        else:  # a process that had to wait for its turn says little about the task
            self._paces[task] = pace * 0.8 + min(seconds, pace * 5) * 0.2

    def _go_on(self) -> None:
        if self._backlog and not self._woken:
            self._woken = True
            self._hub.call_soon(self._distribute)
