"""How many threads keep one interpreter busy: measured, not guessed."""

from __future__ import annotations

from channelsq.worker.running import greenlets

#: Seconds between two looks at how much the threads compute together.
LOOK = 0.01

#: The parts of an interpreter's time above which a thread is taken away, and below which one is added.
BUSY, FREE = 0.95, 0.85

#: Seconds that a job may wait for a thread, at most.
STOCK = 0.004

#: The least weight of a new sample in the averages, the most, and the seconds of a job that get the most.
_LEAST, _MOST, _LONG = 0.1, 0.5, 0.05


class Load:
    """What a runner knows of its jobs.  Not thread-safe.

    Args:
        limit: how many threads there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cap = limit
        self._computing = 1.0
        self._used = 0.0  # seconds of computing since the last look
        self._looked = 0.0
        self._busy = 0.0  # at the last look
        #: Seconds that a job waits for something, on average.
        self.waiting = 0.0
        #: How many jobs may run at once.
        self.allowed = 1

    def add(self, now: float, seconds: float, computed: float, jobs: int = 1, *, alone: bool) -> None:
        """Learn from jobs.

        Args:
            now: by the monotonic clock.
            seconds: how long they took.
            computed: for how long of that their thread computed.
            jobs: how many they were.
            alone: whether no other job ran meanwhile.
        """
        part = min(1.0, computed / seconds) if seconds > 0 else 1.0
        # Beside others that compute a thread also waits for the interpreter, which says nothing of its own job.
        if alone or part > self._computing or self._busy < FREE:
            weight = min(_MOST, max(_LEAST, seconds / _LONG * _MOST))
            self._computing += (part - self._computing) * weight
            self.waiting += ((seconds - computed) / jobs - self.waiting) * weight
        self.compute(now, computed)

    def compute(self, now: float, computed: float) -> None:
        """Note seconds of computing, by a job or beside one."""
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
        """How many jobs wait for so short a time that they may be fetched before a thread is free; 0 for none."""
        if self.allowed == 1:
            return 0
        return min(2 * self.allowed, int(STOCK * self.allowed / max(self.waiting, 0.0001)))

    def stalled(self, running: int) -> None:
        """Note that so many jobs run and none of them moves: one more may be begun."""
        self._cap = max(self._cap, min(self._limit, running + 1))
        self._computing = min(self._computing, 1 / (running + 1))
        self.allowed = max(self.allowed, min(self._limit, running + 1))


class GreenletLoad(Load):
    """The load where threads are greenlets: as many jobs run at once as may.

    Greenlets do not contend for the interpreter: one runs until it waits.  How long each of them computes is not known,
    as they share one thread of the system.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.allowed = limit

    def add(self, now: float, seconds: float, computed: float, jobs: int = 1, *, alone: bool) -> None:
        """Note how long jobs took, which may have been for others that computed; see :meth:`Load.add`."""
        self.waiting += (seconds / jobs - self.waiting) * _LEAST

    def compute(self, now: float, computed: float) -> None:
        """Do nothing; see :meth:`Load.compute`."""

    def stalled(self, running: int) -> None:
        """Do nothing; see :meth:`Load.stalled`."""


def make_load(limit: int) -> Load:
    """Return what a runner of this process is to know of its jobs."""
    return GreenletLoad(limit) if greenlets.are_threads() else Load(limit)
