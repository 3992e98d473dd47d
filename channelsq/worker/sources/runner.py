"""The threads that run a source's consumers: a leader and its followers.

The leader polls the source, then runs the received jobs; its next poll carries the outcomes.  While consumers compute,
this thread does everything, since a second thread would only contend for the interpreter.  If consumers wait, for
example for a database, other threads take jobs from the same backlog, or lead in its place.

When all threads run consumers, an assistant thread polls and sends the outcomes for them.

Measurements decide the number of threads: if a consumer's thread computes for a quarter of its time, four threads take
part.  A consumer without measurements, or a single stall, is noticed after :data:`STALL`.
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

#: Seconds without progress after which another thread takes part in any case: a consumer may compute in C code that
#: has released the interpreter lock.
LONG_STALL = 0.02

#: Seconds for which a thread runs jobs without checking the other threads, while one thread is enough.
BURST = 0.001

#: Seconds that the outcome of a finished job may wait for other outcomes and the next poll, while jobs compute and
#: while they wait.
HOLD, HOLD_WAITING = 0.010, 0.002

#: Seconds that a poll waits for a message.
WAIT = 1.0

#: The average waiting time of a job, in seconds, above which its thread sends earlier outcomes first.
NOTICEABLE = 0.0002

#: Seconds without progress after which no thread watches for stalls, unless that could let another job begin.
QUIET = 0.05

#: The processor load of the process below which its jobs count as waiting.
IDLE = 0.7

#: The part of a wait without a processor above which a running job does not count as stalled.
DELAYED = 0.3

#: The difference between a job's duration and its computing time, in seconds, above which its pauses are checked.
LONGER = 0.001


class Job(Protocol):
    """A message for a consumer."""

    def run(self) -> None:
        """Run the consumer, and settle the message with the source."""


class Source(Protocol):
    """The source of a runner's jobs."""

    def poll(self, seconds: float) -> Sequence[Job]:
        """Send settled messages, wait for new ones, and return them.  In one thread at a time.

        If ``seconds`` is 0, return without waiting.

        Never raise: a lost connection is logged, and the poll waits for the next one.
        """

    def settle(self) -> None:
        """Send settled messages.  From any thread; never raise."""

    def has_credit(self) -> bool:
        """Return whether the source may hold another message."""

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Leave jobs that were not begun to other workers; never raise."""

    def interrupt(self) -> None:
        """Make a waiting poll return soon.  From any thread; never raise."""


class Runner:
    """The threads that run the jobs of one source.

    Args:
        source: the source of the jobs.
        limit: the most threads that run jobs.
        name: the prefix of the threads' names.
        around: returns the context manager in which each thread runs.
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
        self._progress = 0.0  # the time of the last start or end of a job
        self._unsent = 0.0  # the time of the oldest outcome that is not sent; 0 for none
        self._load = make_load(limit)

    # -- Start and stop

    def start(self) -> None:
        """Start the first thread."""
        with self._change:
            self._add_thread()

    def stop(self) -> None:
        """Begin no more jobs; give back those that were not begun."""
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

    # -- Threads

    def _add_thread(self, *, assists: bool = False) -> None:
        self._number += 1
        name = f"{self._name}-assistant" if assists else f"{self._name}-{self._number}"
        thread = threading.Thread(target=self._work, args=(assists,), name=name, daemon=True)
        thread.start()
        self._threads.add(thread)

    def _work(self, assists: bool) -> None:
        """Run the steps of a thread."""
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
        """Return the scheduling delay of threads with jobs since the last call; under the lock."""
        return sum(worker.delays.since() for worker in self._workers if worker.is_running)

    def _is_due(self, now: float) -> bool:
        """Return whether outcomes must be sent now, before the next poll; under the lock."""
        if not self._unsent:
            return False
        if self._load.waiting > NOTICEABLE:
            is_left_alone = self._running >= self.limit and not self._has_assistant
            return is_left_alone or now - self._unsent > HOLD_WAITING
        return now - self._unsent > HOLD

    def _may_begin(self) -> bool:
        return self._running < self._load.allowed

    def _is_to_fetch(self) -> bool:
        """Return whether to poll before the backlog is empty, so that no thread runs out of jobs."""
        if not self._may_be_more or self._polling or len(self._backlog) >= self._load.stock:
            return False
        return self._source.has_credit()

    def _call_another(self) -> None:
        """Wake or start another thread if there is work for it, or if no thread watches for stalls."""
        if self._stopping or (self._watching and not (self._may_begin() and (self._backlog or not self._polling))):
            return
        if self._idle:
            self._change.notify()
        elif len(self._threads) < self.limit:
            try:
                self._add_thread()
            except RuntimeError as error:  # the system has no more threads; the others continue
                self.limit = len(self._threads)
                logger.error(
                    "%s: no thread beside the first %d: %s", self._name, self.limit, error,
                    extra={"action": "no_thread"},
                )  # fmt: skip

    def _call_assistant(self) -> None:
        """Start or wake the assistant, which polls and sends outcomes while all other threads run jobs."""
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
        assists: whether the thread is the assistant, which runs no jobs.
    """

    def __init__(self, runner: Runner, assists: bool) -> None:
        self._runner = runner
        self._assists = assists
        self.delays = Delays()
        self._clock = thread_time()
        self._sends_first = False
        self._pauses: int | None = None
        self._ran = 0  # the number of jobs that it has run since the start of its burst
        self._begun: tuple[float, bool] | None = None  # the start of its job, and whether no other job ran

    @property
    def is_running(self) -> bool:
        """True if the thread runs a job."""
        return self._begun is not None

    def step(self) -> bool:
        """Run a job, poll, send or wait; return False when the thread must end."""
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
        """Return the next step of the assistant."""
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
        """Record the end of the last job; under the lock."""
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
        """Wait for a change; one thread at a time watches for stalled jobs."""
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
                # This may include earlier delays; the next check does not.
                if (idle or stalled >= LONG_STALL) and runner._delayed() < DELAYED * (now - then):
                    runner._load.stalled(runner._running)
        finally:
            runner._idle -= 1

    def _poll(self) -> None:
        runner = self._runner
        jobs: Sequence[Job] = ()
        try:
            jobs = runner._source.poll(0.0 if runner._backlog else WAIT)
        except BaseException:  # for example MemoryError: fetched messages are redelivered after their lease
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
            with runner._change:  # the time of sending does not count for the job
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
                # The message is not acknowledged, and is redelivered when this worker has ended.
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
            # The next job may take long; then other threads send the outcome.  At worst they send once too often.
            runner._unsent = runner._unsent or now

    def _computed(self) -> float:
        """Return the seconds that the thread has computed since the last call."""
        before, self._clock = self._clock, thread_time()
        return self._clock - before

    def _send(self) -> None:
        self._runner._source.settle()


_POLL, _SEND, _END = object(), object(), object()
