"""A thread of this process that sends what live tasks report, so that the tasks do not wait for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Protocol

from channelsq.core.logs import LogLimit
from channelsq.exceptions import BrokerUnavailable

logger = logging.getLogger("channelsq.live")

#: Seconds after which reports are sent again while the layer is away.
_AGAIN = 1.0

#: Seconds for which the thread waits for work before it ends.
_IDLE = 10.0


class Source(Protocol):
    """Reports of a task that are sent together."""

    def flush(self) -> float | None:
        """Send the waiting reports; return the seconds until the next call, None if nothing waits.

        Raises:
            BrokerUnavailable: the reports still wait; the call is repeated.
        """


class Reporter:
    """Calls the ``flush`` of sources when it is due, one after another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Source, float] = {}
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._limit = LogLimit(10.0)

    def wake(self, source: Source, due: float) -> None:
        """Flush a source at ``due``, by the monotonic clock, unless that happens before."""
        with self._changed:
            earlier = self._due.get(source)
            if earlier is not None and earlier <= due:
                return
            self._due[source] = due
            if self._thread is None or not self._thread.is_alive() or self._pid != os.getpid():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._run, name="channelsq-live", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _next(self) -> Source | None:
        """Return a source that is due; None if there was nothing to do for a while."""
        idle_at = time.monotonic() + _IDLE
        with self._changed:
            while True:
                source, due = min(self._due.items(), key=lambda each: each[1], default=(None, idle_at))
                left = due - time.monotonic()
                if source is not None and left <= 0:
                    del self._due[source]
                    return source
                if source is None and left <= 0:
                    self._thread = None
                    return None
                self._changed.wait(left)

    def _run(self) -> None:
        while (source := self._next()) is not None:
            try:
                again = source.flush()
            except BrokerUnavailable as error:
                again = _AGAIN
                if self._limit.allows():
                    logger.warning("reports of live tasks wait: %s", error, extra={"action": "live_reports_wait"})
            except Exception:
                logger.exception("reports of a live task were lost", extra={"action": "live_reports_lost"})
                continue
            if again is not None:
                self.wake(source, time.monotonic() + again)


def _start_anew() -> None:
    """Forget the thread of the parent process after a fork."""
    global reporter
    reporter = Reporter()


reporter = Reporter()
os.register_at_fork(after_in_child=_start_anew)


def wake(source: Source, due: float) -> None:
    """See :meth:`Reporter.wake`."""
    reporter.wake(source, due)
