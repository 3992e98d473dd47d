"""The threads that run a source's consumers: one leads, the others follow.

The thread that leads polls the source, then runs what the poll brought; its next poll carries the outcomes.  While
consumers compute, that one thread does everything, since a second one would only contend for the interpreter.  Where
consumers wait, for a database say, others take jobs off the same backlog, or lead in its place.

When all of them run consumers, one thread more polls for them, and sends the outcomes: those that run consumers then
do nothing else.

How many threads take part follows from what is measured: a consumer whose thread computes for a quarter of its time
leaves room for four.  A consumer that is not known yet, or stalls for once, is noticed after :data:`STALL`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from time import monotonic, process_time, thread_time
from typing import Protocol

from channelsq.worker.sources.delays import Delays, pauses
from channelsq.worker.sources.load import make_load

logger = logging.getLogger("channelsq.worker")

#: Seconds without progress after which another thread takes part, if the runner's threads compute little.
STALL = 0.002

#: Seconds without progress after which one does in any case: a consumer may compute outside of the interpreter.
LONG_STALL = 0.02

#: Seconds for which a thread takes one job after the other without a look at the others, while one thread is enough.
BURST = 0.001

#: Seconds that a finished job's outcome may wait for those of others, and for the next poll, while jobs compute, and
#: while they wait for something.
HOLD, HOLD_WAITING = 0.010, 0.002

#: Seconds that a poll waits for a message.
WAIT = 1.0

#: Seconds of waiting in a job from which its thread sends the outcomes of earlier jobs first.
NOTICEABLE = 0.0002

#: Seconds without progress after which no thread watches for stalls, unless one could let another job begin.
QUIET = 0.05

#: Processor time, as a part of a second a second, up to which the process is thought to be waiting for something.
IDLE = 0.7

#: The part of a wait for which a thread that runs a job had no processor, from which on it is not thought to be stuck.
DELAYED = 0.3

#: Seconds that a job takes longer than it computes from which it is asked whether it waited at all.
LONGER = 0.001


class Job(Protocol):
    """A message that is to be handled."""

    def run(self) -> None:
        """Run its consumer, and note the outcome with the source."""


class Source(Protocol):
    """A layer's queues, for a runner."""

    def poll(self, seconds: float) -> Sequence[Job]:
        """Send what is settled, wait for messages, and return them.  In one thread at a time.

        With no ``seconds`` it does not wait for what is not there.

        Raises nothing: a lost connection is logged, and waited for.
        """

    def settle(self) -> None:
        """Send what is settled.  From any thread; raises nothing."""

    def has_credit(self) -> bool:
        """Return whether another message may be taken."""

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Leave jobs that were not begun to other workers; raises nothing."""

    def interrupt(self) -> None:
        """Have a poll that waits return soon.  From any thread; raises nothing."""


class Runner:
    """Runs the jobs of one source.

    Args:
        source: where they come from.
        limit: how many threads may run jobs.
        name: for the threads.
        around: makes the context in which each thread runs.
    """

    def __init__(
        self,
        source: Source,
        limit: int,
        name: str,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._source = source
        self.limit = limit
        self._name = name
        self._around = around
        lock = threading.RLock()
        self._change = threading.Condition(lock)
        self._all_run = threading.Condition(lock)  # for the assistant
        self._backlog: deque[Job] = deque()  # bounded by the source's credit; popped from without the lock, too
        self._threads: set[threading.Thread] = set()
        self._workers: set[_Worker] = set()
        self._number = 0
        self._has_assistant = False  # a thread that runs no jobs
        self._assistant_sleeps = False
        self._idle = 0
        self._running = 0
        self._polling = False
        self._may_be_more = False  # whether the last poll brought anything
        self._watching = False
        self._stopping = False
        self._progress = 0.0  # when a job was begun or finished last
        self._unsent = 0.0  # since when there are outcomes that nobody has sent; 0 for none
        self._load = make_load(limit)

    # -- its life

    def start(self) -> None:
        """Start the first thread."""
        with self._change:
            self._add_thread()

    def stop(self) -> None:
        """Begin no more jobs; what was not begun is given back."""
        with self._change:
            self._stopping = True
            left: list[Job] = []
            with suppress(IndexError):
                while True:
                    left.append(self._backlog.popleft())
            self._change.notify_all()
            self._all_run.notify()
        self._source.interrupt()
        if left:
            self._source.give_back(left)

    def wait(self, until: float | None = None) -> bool:
        """Wait until the running jobs are done, or ``monotonic()`` is ``until``; return whether they are."""
        threads = tuple(self._threads)
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # -- the threads

    def _add_thread(self, *, assists: bool = False) -> None:
        self._number += 1
        name = f"{self._name}-assistant" if assists else f"{self._name}-{self._number}"
        thread = threading.Thread(target=self._work, args=(assists,), name=name, daemon=True)
        thread.start()
        self._threads.add(thread)

    def _work(self, assists: bool) -> None:
        """In a thread: take one step after the other."""
        worker = _Worker(self, assists)
        with self._change:
            self._workers.add(worker)
        try:
            with self._around():
                while worker.step():
                    pass
        finally:
            with self._change:
                self._threads.discard(threading.current_thread())
                self._workers.discard(worker)
            worker.delays.close()

    def _delayed(self) -> float:
        """Return for how long threads that run jobs have had no processor, since it was asked last; under the lock."""
        return sum(worker.delays.since() for worker in self._workers if worker.is_running)

    def _is_due(self, now: float) -> bool:
        """Return whether outcomes must be sent now, as other jobs may take long; under the lock."""
        if not self._unsent:
            return False
        if self._load.waiting > NOTICEABLE:
            is_left_alone = self._running >= self.limit and not self._has_assistant
            return is_left_alone or now - self._unsent > HOLD_WAITING
        return now - self._unsent > HOLD

    def _may_begin(self) -> bool:
        return self._running < self._load.allowed

    def _is_to_fetch(self) -> bool:
        """Return whether to poll though jobs are left, as they are few: then no thread runs out of them."""
        if not self._may_be_more or self._polling or len(self._backlog) >= self._load.stock:
            return False
        return self._source.has_credit()

    def _call_another(self) -> None:
        """Have another thread take part if there is something for it, or watch if no thread does."""
        if self._stopping or (self._watching and not (self._may_begin() and (self._backlog or not self._polling))):
            return
        if self._idle:
            self._change.notify()
        elif len(self._threads) < self.limit:
            try:
                self._add_thread()
            except RuntimeError as error:  # the system has no more; those that there are go on
                self.limit = len(self._threads)
                logger.error(
                    "%s: no thread beside the first %d: %s", self._name, self.limit, error,
                    extra={"action": "no_thread"},
                )  # fmt: skip

    def _call_assistant(self) -> None:
        """Have a thread that runs no jobs poll, and send the outcomes, while all others run jobs."""
        if self._stopping:
            return
        if self._has_assistant:
            if self._assistant_sleeps:
                self._assistant_sleeps = False
                self._all_run.notify()
            return
        with suppress(RuntimeError):  # the system has no more threads
            self._add_thread(assists=True)
            self._has_assistant = True


class _Worker:
    """One thread of a runner.

    Args:
        runner: the runner, whose private state its threads share.
        assists: whether it runs no jobs.
    """

    def __init__(self, runner: Runner, assists: bool) -> None:
        self._runner = runner
        self._assists = assists
        self.delays = Delays()
        self._clock = thread_time()
        self._sends_first = False
        self._pauses: int | None = None
        self._ran = 0  # how many jobs it has run since
        self._begun: tuple[float, bool] | None = None  # when its job began, and whether it was the only one

    @property
    def is_running(self) -> bool:
        """Whether it runs a job."""
        return self._begun is not None

    def step(self) -> bool:
        """Run a job, poll, send or wait; False when the thread is to end."""
        runner = self._runner
        with runner._change:
            self._finish()
            step = self._next()
        if step is _END:
            self._send()
            return False
        if step is _POLL:
            self._poll()
        elif step is _SEND:
            self._send()
        else:
            self._run(step)  # type: ignore[arg-type]
        return True

    def _next(self) -> Job | object:
        """Return the next step; under the lock."""
        runner = self._runner
        if self._assists:
            return self._next_to_assist()
        while not runner._stopping:
            if runner._backlog:
                if runner._may_begin():
                    if runner._is_to_fetch():
                        return self._lead()
                    with suppress(IndexError):  # another thread was quicker
                        return self._begin(runner._backlog.popleft())
            elif not runner._polling and runner._may_begin() and runner._source.has_credit():
                return self._lead()
            if runner._unsent and (not runner._backlog or runner._is_due(monotonic())):
                runner._unsent = 0.0
                return _SEND
            self._wait()
        return _END

    def _next_to_assist(self) -> object:
        """Return the next step of the thread that runs no jobs."""
        runner = self._runner
        while not runner._stopping:
            all_run = runner._running >= runner.limit
            if all_run and not runner._backlog and not runner._polling and runner._source.has_credit():
                return self._lead()
            now = monotonic()
            if runner._unsent and runner._is_due(now):
                runner._unsent = 0.0
                return _SEND
            if runner._unsent or (all_run and now - runner._progress < QUIET):
                runner._all_run.wait(HOLD_WAITING)
            else:
                runner._assistant_sleeps = True
                runner._all_run.wait()
        return _END

    def _lead(self) -> object:
        self._runner._polling = True
        self._runner._unsent = 0.0
        return _POLL

    def _begin(self, job: Job) -> Job:
        runner = self._runner
        runner._running += 1
        runner._progress = now = monotonic()
        self._begun = now, runner._running == 1
        self._pauses = pauses()
        self._sends_first = runner._is_due(now)
        if self._sends_first:
            runner._unsent = 0.0
        if runner._running < runner.limit:
            runner._call_another()
        elif runner.limit > 1:
            runner._call_assistant()
        return job

    def _finish(self) -> None:
        """Note the end of the job that was begun last; under the lock."""
        if self._begun is None:
            return
        runner = self._runner
        (begun, alone), self._begun = self._begun, None
        runner._running -= 1
        runner._progress = now = monotonic()
        runner._unsent = runner._unsent or now
        seconds, computed = now - begun, self._computed()
        if seconds - computed > LONGER and self._pauses is not None and self._pauses == pauses():
            seconds = computed  # it had no processor
        runner._load.add(now, seconds, computed, self._ran, alone=alone and not runner._running)

    def _wait(self) -> None:
        """Wait for a change; one thread at a time looks whether the others are stuck."""
        runner = self._runner
        runner._idle += 1
        try:
            is_quiet = monotonic() - runner._progress > QUIET
            if runner._watching or (is_quiet and (not runner._running or runner._may_begin())):
                runner._change.wait()
                return
            runner._watching = True
            then, used = monotonic(), process_time()
            try:
                if runner._change.wait(STALL):
                    return
            finally:
                runner._watching = False
            now = monotonic()
            stalled = now - runner._progress
            if runner._running and stalled >= STALL and not runner._may_begin():
                idle = (process_time() - used) < IDLE * (now - then)
                # This may count earlier delays, too; the next look does not.
                if (idle or stalled >= LONG_STALL) and runner._delayed() < DELAYED * (now - then):
                    runner._load.stalled(runner._running)
        finally:
            runner._idle -= 1

    def _poll(self) -> None:
        runner = self._runner
        jobs: Sequence[Job] = ()
        try:
            jobs = runner._source.poll(0.0 if runner._backlog else WAIT)
        except BaseException:  # of this code, out of memory say: what was fetched comes again with its lease
            logger.exception("a poll was interrupted", extra={"action": "poll_failed"})
        now = monotonic()
        with runner._change:
            runner._polling = False
            runner._may_be_more = bool(jobs)
            runner._load.compute(now, self._computed())
            if not runner._stopping:
                runner._backlog.extend(jobs)
                if self._assists:  # others run them, and poll next
                    runner._change.notify()
                return
        if jobs:
            runner._source.give_back(jobs)

    def _run(self, job: Job) -> None:
        runner = self._runner
        if self._sends_first:
            self._send()
            with runner._change:  # what that took is not the job's
                assert self._begun is not None
                now = monotonic()
                self._begun, self._pauses = (now, self._begun[1]), pauses()
                runner._load.compute(now, self._computed())
        until = monotonic() + BURST
        self._ran = 0
        while True:
            try:
                job.run()
            except BaseException:
                # The message is not acknowledged, and comes again when this worker has ended.
                logger.exception("%r failed in the worker", job, extra={"action": "run_failed"})
            self._ran += 1
            now = monotonic()
            if now > until or runner._stopping or runner._load.allowed > 1:
                break
            try:
                job = runner._backlog.popleft()
            except IndexError:
                break
            runner._progress = now
            # The next job may take long, and others send the outcome then.  At worst they send once too often.
            runner._unsent = runner._unsent or now

    def _computed(self) -> float:
        """Return the seconds that the thread has computed since it asked last."""
        before, self._clock = self._clock, thread_time()
        return self._clock - before

    def _send(self) -> None:
        self._runner._source.settle()


_POLL, _SEND, _END = object(), object(), object()
