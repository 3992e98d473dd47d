"""Measurement of the number of threads that keep one interpreter busy."""

from __future__ import annotations

from channelsq.worker.running import greenlets

#: Seconds between two measurements of the threads' computing time.
LOOK = 0.01

#: The interpreter loads above which a thread is removed, and below which a thread is added.
BUSY, FREE = 0.95, 0.85

#: The most seconds that a job may wait for a thread.
STOCK = 0.004

#: The least weight of a new sample in the averages, the most, and the seconds of a job that get the most.
_LEAST, _MOST, _LONG = 0.1, 0.5, 0.05


class Load:
    """Averages of a runner's jobs.  Not thread-safe.

    Args:
        limit: the most threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cap = limit
        self._computing = 1.0
        self._used = 0.0  # seconds of computing since the last look
        self._looked = 0.0
        self._busy = 0.0  # at the last look
        #: Seconds that a job waits, on average.
        self.waiting = 0.0
        #: The number of jobs that may run at once.
        self.allowed = 1

    def add(self, now: float, seconds: float, computed: float, jobs: int = 1, *, alone: bool) -> None:
        """Add finished jobs to the averages.

        Args:
            now: the time of the monotonic clock.
            seconds: the duration of the jobs.
            computed: the part of it that their thread computed.
            jobs: the number of jobs.
            alone: whether no other job ran meanwhile.
        """
        part = min(1.0, computed / seconds) if seconds > 0 else 1.0
        # Beside computing threads a thread also waits for the interpreter, which does not count as the job's waiting.
        if alone or part > self._computing or self._busy < FREE:
            weight = min(_MOST, max(_LEAST, seconds / _LONG * _MOST))
            self._computing += (part - self._computing) * weight
            self.waiting += ((seconds - computed) / jobs - self.waiting) * weight
        self.compute(now, computed)

    def compute(self, now: float, computed: float) -> None:
        """Add seconds of computing, of a job or of the runner."""
        self._used += computed
        elapsed = now - self._looked
        if elapsed >= LOOK:
            self._busy = self._used / elapsed
            self._used, self._looked = 0.0, now
            if self._busy > BUSY:
                self._cap = max(1, min(self._cap, self.allowed) - 1)
            elif self._busy < FREE and self._cap < self._limit:
                self._cap += 1
        self.allowed = max(1, min(self._cap, self._limit, int(1 / max(self._computing, 0.01) + 0.5)))

    @property
    def stock(self) -> int:
        """The number of jobs that may be fetched before a thread is free, as they would wait only briefly."""
        if self.allowed == 1:
            return 0
        return min(2 * self.allowed, int(STOCK * self.allowed / max(self.waiting, 0.0001)))

    def stalled(self, running: int) -> None:
        """Allow one more job, as none of the running jobs makes progress."""
        self._cap = max(self._cap, min(self._limit, running + 1))
        self._computing = min(self._computing, 1 / (running + 1))
        self.allowed = max(self.allowed, min(self._limit, running + 1))


class GreenletLoad(Load):
    """The load of greenlets: all of them may run jobs at once.

    Greenlets do not contend for the interpreter: each runs until it waits.  Their computing times are unknown, as they
    share one system thread.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.allowed = limit

    def add(self, now: float, seconds: float, computed: float, jobs: int = 1, *, alone: bool) -> None:
        """Add the durations of jobs, which may include waiting for other greenlets; see :meth:`Load.add`."""
        self.waiting += (seconds / jobs - self.waiting) * _LEAST

    def compute(self, now: float, computed: float) -> None:
        """Do nothing; see :meth:`Load.compute`."""

    def stalled(self, running: int) -> None:
        """Do nothing; see :meth:`Load.stalled`."""


def make_load(limit: int) -> Load:
    """Return the load for a runner of this process."""
    return GreenletLoad(limit) if greenlets.are_threads() else Load(limit)
