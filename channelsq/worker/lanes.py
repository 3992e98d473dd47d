"""Where requests on the short way are run: at once, or by the threads of Celery's pool."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Executor
from typing import Any, Protocol

from channelsq.transport.consuming import HOLD

logger = logging.getLogger("channelsq.worker")

#: Seconds without progress after which other threads take part, if the process has time to spare.
STUCK = 0.002

#: Seconds without progress after which they do in any case: what computes may do so outside of the interpreter.
LONG_STUCK = 0.02

#: Processor time, as a part of a second a second, up to which the process is thought to be waiting for something.
IDLE = 0.7

#: Seconds after which a thread lets the pool's other tasks have their turn.
TURN = 0.05


class Runnable(Protocol):
    """A request; see :class:`channelsq.worker.lean.LeanRequest`."""

    @property
    def abandoned(self) -> bool:
        """Whether it is not to be begun any more."""

    def run(self) -> None:
        """Run its consumer."""


class Lane(Protocol):
    """Runs requests."""

    def put(self, request: Any) -> None:
        """Run it, now or soon."""


class SoloLane:
    """Runs each request at once, in the thread that fetched it."""

    def put(self, request: Any) -> None:
        """Run it; the next poll, or the delivery of the batch, sends what it acknowledged."""
        if not request.abandoned:
            request.run()


class ThreadLane:
    """Runs requests in the threads of a pool, with no more of them than are of use.

    Consumers that compute are run by one thread, one after the other: more threads would only contend for the
    interpreter.  Once a consumer waits for something, others of the pool's threads take part.

    Args:
        executor: the pool's.
        limit: how many threads it has.
        hub: the worker's event loop; without one every request asks for a thread.
    """

    def __init__(self, executor: Executor, limit: int, hub: Any) -> None:
        self._executor = executor
        self._limit = limit
        self._hub = hub
        self._backlog: deque[Any] = deque()  # bounded by the worker's prefetch count
        self._lock = threading.Lock()
        self._threads = 0
        self._progress = 0.0
        self._watching = False
        self._watched = (0.0, 0.0)  # the time, and the process's time, when it was last looked

    def put(self, request: Any) -> None:
        """Have it run by a thread."""
        with self._lock:
            self._backlog.append(request)
            idle = self._threads == 0
        if idle or self._hub is None:
            self._add_threads(1)
        elif not self._watching:
            self._watch_again()

    def _add_threads(self, wanted: int) -> None:
        with self._lock:
            wanted = min(wanted, self._limit - self._threads)
            self._threads += max(0, wanted)
        for _ in range(wanted):
            self._submit()

    def _submit(self) -> None:
        try:
            self._executor.submit(self._drain)
        except RuntimeError:  # the pool is stopping: what waits is given back with the channel
            with self._lock:
                self._threads -= 1

    def _watch(self) -> None:
        """In the event loop: see whether what waits is getting on."""
        self._watching = False
        waiting = len(self._backlog)
        if not waiting:
            return
        (then, used_then), now = self._watched, time.monotonic()
        stuck = now - self._progress
        busy = (time.process_time() - used_then) / max(now - then, 1e-6)
        if stuck > LONG_STUCK or (stuck > STUCK and busy < IDLE):
            self._add_threads(waiting)
        self._watch_again()

    def _watch_again(self) -> None:
        self._watching = True
        self._watched = time.monotonic(), time.process_time()
        self._hub.call_later(STUCK, self._watch)

    def _drain(self) -> None:
        """In a thread: run what waits; the thread is counted on until there is no more."""
        try:
            self._run_backlog()
        except BaseException:  # of this code, out of memory say; the rest of the backlog needs another turn
            logger.exception("a thread was interrupted in its work", extra={"action": "run_failed"})
            self._submit()

    def _run_backlog(self) -> None:
        started = flushed = time.monotonic()
        channel: Any = None
        while True:
            try:
                request = self._backlog.popleft()
            except IndexError:
                if channel is not None:
                    self._flush(channel)
                    channel = None
                    continue
                with self._lock:
                    if self._backlog:
                        continue
                    self._threads -= 1
                    return
            self._progress = time.monotonic()
            if channel is not None and (request.channel is not channel or self._progress - flushed > HOLD):
                self._flush(channel)
                flushed = time.monotonic()
            channel = request.channel
            self._run(request)
            if time.monotonic() - started > TURN:
                self._flush(channel)
                self._submit()
                return

    def _run(self, request: Any) -> None:
        try:
            if not request.abandoned:
                request.run()
        except BaseException:
            # As with Celery's own way through this pool: the message is not acknowledged, and comes again
            # when this worker has ended.
            logger.exception("%s failed in the worker", request.humaninfo(), extra={"action": "run_failed"})

    def _flush(self, channel: Any) -> None:
        try:
            channel.flush_acks(wait=False)
        except channel.connection_errors as error:
            logger.warning("acknowledgements wait, Redis is away: %s", error, extra={"action": "acks_wait"})
        except Exception:  # they wait, too, and this thread is counted on
            logger.exception("acknowledgements could not be sent", extra={"action": "acks_wait"})
        channel.free_credit()
