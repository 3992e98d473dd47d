"""A source of messages for a runner, whose queue is in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from channelsq.worker.sources.runner import Job


class FakeJob:
    """A message whose consumer is ``function``."""

    def __init__(self, source: FakeSource, function: Callable[[], object]) -> None:
        self._source = source
        self._function = function

    def run(self) -> None:
        self._source.begun += 1
        try:
            self._function()
        finally:
            self._source.done(self)


class FakeSource:
    """A source whose queue is in memory.

    Args:
        credit: how many jobs may be held at once.
    """

    def __init__(self, credit: int = 100) -> None:
        self._change = threading.Condition()
        self._queue: deque[FakeJob] = deque()
        self._credit = credit
        self._interrupted = False
        self._held: list[FakeJob] = []
        self._unsent: list[FakeJob] = []
        self.sent: list[FakeJob] = []
        self.given_back: list[Job] = []
        self.polls = self.asked = self.polling = self.most_polling = 0
        #: How many jobs were begun at each poll that did not wait.
        self.begun_at_fetches: list[int] = []
        self.begun = 0

    def put(self, *functions: Callable[[], object]) -> list[FakeJob]:
        jobs = [FakeJob(self, function) for function in functions]
        with self._change:
            self._queue.extend(jobs)
            self._change.notify_all()
        return jobs

    def done(self, job: FakeJob) -> None:
        with self._change:
            self._held.remove(job)
            self._unsent.append(job)

    # -- for the runner

    def poll(self, seconds: float) -> Sequence[FakeJob]:
        with self._change:
            self.polls += 1
            if not seconds:
                self.begun_at_fetches.append(self.begun)
            self.polling += 1
            self.most_polling = max(self.most_polling, self.polling)
            self._send()
            self._change.wait_for(lambda: self._queue or self._interrupted, seconds)
            found: list[FakeJob] = []
            while self._queue and len(self._held) < self._credit:
                found.append(self._queue.popleft())
                self._held.append(found[-1])
            self.polling -= 1
            return found

    def settle(self) -> None:
        with self._change:
            self._send()

    def _send(self) -> None:
        self.sent += self._unsent
        self._unsent.clear()

    def has_credit(self) -> bool:
        self.asked += 1
        return len(self._held) < self._credit

    def give_back(self, jobs: Sequence[Job]) -> None:
        self.given_back += jobs

    def interrupt(self) -> None:
        with self._change:
            self._interrupted = True
            self._change.notify_all()
