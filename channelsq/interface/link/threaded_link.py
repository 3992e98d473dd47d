"""The link to any broker: one thread publishes, in order, and the layer's own threads listen."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core.names import new_id
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link.link_contract import Publication
from channelsq.interface.link.replies import Replies
from channelsq.interface.link.retrying_link import RetryingLink
from channelsq.layers.contract.layer_values import Listener, Send

_Outcome = Callable[[Exception | None], None]


class _Job(NamedTuple):
    """A job of the thread: a message to send, or a call."""

    what: Send | Callable[[], None]
    target: str
    size: int
    outcome: _Outcome | None


#: Seconds that listeners and the publishing thread have to end, together.  A thread that waits for the broker ends by
#: itself a little later; the messages that it still receives have no client.
_STOPPING = 0.3

#: Seconds without a publication after which the broker is asked whether it is there; and while it is away.
_PROBE_EVERY, _PROBE_AGAIN = 10.0, 2.0


class ThreadedLink(RetryingLink):
    """See :class:`channelsq.interface.link.link_contract.Link`.

    Args:
        limit, limit_bytes: how many publications, and how much of them, may wait; more are refused with ChannelFull.
    """

    def __init__(
        self,
        layer: ChannelLayerWrapper,
        stats: Counters,
        limit: int = 10_000,
        limit_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        super().__init__(layer, stats)
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._under_way = 0  # messages that the layer has and has told nothing of
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._listeners: list[Listener] = []
        self._prefixes: list[str] = []
        #: Whether the last attempt to reach the broker failed, and no probe has succeeded since.
        self._away = False
        self._outcomes: deque[tuple[_Outcome, Exception | None]] = deque()

    def start_publishing(self) -> None:
        """Publish, without listening to anything."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="channelsq-publish", daemon=True)
        self._thread.start()

    async def _start(self, prefixes: list[str], replies: Replies) -> None:
        self._prefixes = prefixes
        self.start_publishing()
        await asyncio.to_thread(self._listen, prefixes, replies)

    @property
    def reachable(self) -> bool:
        return not self._away and all(listener.connected for listener in self._listeners)

    def _listen(self, prefixes: list[str], replies: Replies) -> None:
        for prefix in prefixes:
            self._listeners.append(self.layer.channel_layer.listen(prefix, replies.deliver))

    async def _stop(self) -> int:
        with self._changed:
            self._stopping = True
            left = len(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        await asyncio.to_thread(self._end_threads)
        return left

    def _end_threads(self) -> None:
        # Side by side and not for ever: a listener may be in the middle of reaching a lost broker.
        deadline = time.monotonic() + _STOPPING
        ending = [threading.Thread(target=listener.stop, daemon=True) for listener in self._listeners]
        for thread in ending:
            thread.start()
        self._listeners.clear()
        if self._thread is not None:
            ending.append(self._thread)
        for thread in ending:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def idle(self) -> bool:
        with self._changed:
            return not (self._jobs or self._busy or self._under_way or self._outcomes)

    # -- in the event loop ------------------------------------------------------------------

    def _try(self, publication: Publication, pause: float) -> None:
        if publication.identity is None:
            publication.identity = new_id()
        send = publication.send._replace(identity=publication.identity)
        outcome = (lambda error: self._tried(publication, pause, error)) if publication.publisher is not None else None
        self._add(_Job(send, send.target, publication.size, outcome))

    def _forget(self, channel: str) -> None:
        forget = functools.partial(self.layer.channel_layer.forget_channel, channel)
        self._add(_Job(forget, channel, len(channel), functools.partial(self._forgotten, channel)))

    def _add(self, job: _Job) -> None:
        with self._changed:
            waiting = len(self._jobs) + self._under_way
            # One may always wait, however large it is.
            room = not waiting or (waiting < self._limit and self._bytes + job.size <= self._limit_bytes)
            if room and not self._stopping:
                self._jobs.append(job)
                self._bytes += job.size
                self._changed.notify()
                return
        self._stats.count("link.refused")
        if job.outcome is not None:
            self._loop.call_soon(job.outcome, ChannelFull(job.target, self._limit))

    # -- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                if not self._jobs and not self._stopping:
                    self._changed.wait(_PROBE_AGAIN if self._away else _PROBE_EVERY)
                if self._stopping:
                    return
                self._busy = bool(self._jobs)
                batch = list(self._jobs)
                self._jobs.clear()
                self._under_way += len(batch)
            lost = self._work(batch)
            if not batch or (self._away and lost is None):
                self._probe()

    def _probe(self) -> None:
        """Ask the broker for something, so that its loss is noticed without a client's message, and its return."""
        if self._prefixes:
            channel = self._prefixes[0]
            self._away = self._attempt(lambda: self._ask(channel), channel, quiet=self._away) is not None

    def _ask(self, channel: str) -> None:
        self.layer.channel_layer.probe(channel)

    def _work(self, batch: list[_Job]) -> BrokerUnavailable | None:
        """Do what a batch is of; gives why the broker was lost over it, if that is known now."""
        lost: BrokerUnavailable | None = None
        for is_call, jobs in itertools.groupby(batch, lambda job: callable(job.what)):
            if not is_call:
                lost = self._send(list(jobs), lost)
                continue
            for job in jobs:
                # Each attempt at a lost broker takes seconds: later messages are given the answer of the first.
                error = lost or self._attempt(job.what, job.target, quiet=job.outcome is not None)  # type: ignore[arg-type]
                if isinstance(error, BrokerUnavailable):
                    lost = error
                self._finish(job, error)
        return lost

    def _send(self, jobs: list[_Job], lost: BrokerUnavailable | None) -> BrokerUnavailable | None:
        """Have the layer send; gives why the broker was lost over it, if that is known now."""
        found = [lost] if lost is not None else []

        def sent(place: int, error: Exception | None) -> None:
            job = jobs[place]
            if error is not None:
                self._failed(error, job.target, quiet=job.outcome is not None)
            if isinstance(error, BrokerUnavailable):
                found.append(error)
            self._finish(job, error)

        if lost is not None:
            for job in jobs:
                self._finish(job, lost)
        else:
            self.layer.channel_layer.submit([job.what for job in jobs], sent)  # type: ignore[misc]
        return found[0] if found else None

    def _finish(self, job: _Job, error: Exception | None) -> None:
        """Note what became of a job; from any thread."""
        with self._changed:
            self._under_way -= 1
            self._bytes -= job.size
            if isinstance(error, BrokerUnavailable) and self._prefixes and not self._away:
                self._away = True
                self._changed.notify()  # which has the broker asked whether it is there
        if job.outcome is not None:
            self._tell(job.outcome, error)

    def _tell(self, outcome: _Outcome, error: Exception | None) -> None:
        with self._changed:
            self._outcomes.append((outcome, error))
            if len(self._outcomes) > 1:
                return
        try:
            self._loop.call_soon_threadsafe(self._tell_all)
        except RuntimeError:  # the loop is closed, with all its publishers
            with self._changed:
                self._outcomes.clear()

    def _tell_all(self) -> None:
        with self._changed:
            outcomes = list(self._outcomes)
            self._outcomes.clear()
        for outcome, error in outcomes:
            outcome(error)
