"""The step of Celery's worker that reads channel layers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from celery import bootsteps, signals

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.core import streaming
from channelsq.core.streaming import Streaming
from channelsq.core.wire_version import WIRE_VERSION
from channelsq.delivery import shutdown
from channelsq.version import __version__
from channelsq.worker.announcer import Announcer
from channelsq.worker.celery_join_internals import let_consumers_wait
from channelsq.worker.commands import consumer_limits
from channelsq.worker.commands.event_relay import Relay
from channelsq.worker.commands.selection import selection_of
from channelsq.worker.processes.process_supervisor import Supervisor
from channelsq.worker.running import celery_state_internals, greenlets
from channelsq.worker.running.consumer_tasks import tasks_of
from channelsq.worker.sources import held_messages
from channelsq.worker.sources.crew import Crew

logger = logging.getLogger("channelsq.worker")

#: The default number of threads of a channel process.
DEFAULT_THREADS = 8

#: Seconds between two checks whether a warm shutdown has become a cold one.
LOOK_EVERY = 0.2

#: The most channels in an announcement.
_MOST_ANNOUNCED = 1000

#: The time limit, in seconds, for a channel process to end in a cold shutdown.
CUT_WITHIN = 5.0


class Sources(bootsteps.StartStopStep):
    """A worker step that reads the channel layers, beside Celery's broker and pool.

    Celery restarts the steps of its *consumer* when its broker is lost or unavailable at the start; steps of the worker
    keep running.

    Args:
        worker: Celery's worker.
        channel_threads: the option ``--channel-threads``.
        channel_processes: the option ``--channel-processes``.
    """

    requires = ("celery.worker.components:Pool",)
    label = "Channel layers"

    def __init__(
        self,
        worker: Any,
        channel_threads: int | None = None,
        channel_processes: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(worker, **options)
        worker.channelsq_sources = self
        self._worker = worker
        selection = selection_of(worker)
        #: The channels that are read, by the alias of their layer.
        self.channels = {
            alias: channels for alias, tasks in tasks_of(worker.app).items() if (channels := selection.of(alias))
        }
        #: The number of consumers of a layer that run at once, in each process.
        self.threads = self._number_of_threads() if channel_threads is None else channel_threads
        #: The number of processes that run consumers; 0 for threads of the worker.
        self.processes = self._number_of_processes() if channel_processes is None else channel_processes
        conf.sends_events()  # unusable settings end the worker here, not at its first message
        #: The limits after which channel processes are replaced, see :func:`channelsq.conf.recycled_after`.
        self._recycled_after = {f"max_{limit}": conf.recycled_after(limit) for limit in ("messages", "memory")}
        self._relay = Relay(worker)
        # Exists in Celery 5.5 and later.
        self._celery_waits: Callable[[], None] = getattr(worker, "wait_for_soft_shutdown", lambda: None)
        worker.wait_for_soft_shutdown = self.wait_softly
        self._is_process_logged = False
        self._softly = 0.0  # seconds that a cold shutdown gives channel processes
        self.crew: Crew | None = None
        self.supervisor: Supervisor | None = None
        layers = [channel_layers[alias] for alias in self.channels]
        self._announcer = Announcer(worker.hostname, layers, self._announced_on)
        self._announced = set(self.channels)

    # -- Called by Celery

    def create(self, worker: Any) -> None:
        """Run the project's set-up code before Celery creates its consumer and its tracers."""
        if self.channels and not self.processes and not self.pool_keeps_limits:
            self._tell_of_process()

    def _tell_of_process(self) -> None:
        """Send ``worker_process_init`` for threads with consumers; Celery sends it only for processes.

        Celery's solo pool sends it, too.
        """
        if not self._is_process_logged and "solo" not in self._worker.pool_cls.__module__:
            signals.worker_process_init.send(sender=self._worker.hostname)
        self._is_process_logged = True

    def start(self, worker: Any) -> None:
        """Start reading."""
        if self.channels:
            self._start(worker)

    def _start(self, worker: Any) -> None:
        for problem in consumer_limits.problems(worker.app, self.channels, pool_keeps_limits=self.pool_keeps_limits):
            logger.warning("%s", problem, extra={"action": "time_limits"})
        if self.pool_keeps_limits and not self.processes:
            logger.warning(
                "consumers run in threads of a worker that forks (-P prefork with 0 channel processes): a process of "
                "the pool may inherit a lock that a thread held, and hang; leave --channel-processes out, or use "
                "-P threads",
                extra={"action": "threads_beside_forks"},
            )
        if self.processes:
            self.supervisor = Supervisor(
                worker.app,
                worker.hostname,
                self.channels,
                self.processes,
                self.threads,
                self._relay.send,
                {
                    "loglevel": worker.loglevel,
                    "logfile": worker.logfile,
                    **self._recycled_after,
                    "pool_keeps_limits": self.pool_keeps_limits,
                },
            )
            self.supervisor.tell("revoked", revoke=celery_state_internals.revoked_ids())
            self.supervisor.start()
        else:
            self._tell_of_process()
            self.crew = Crew(
                worker.app,
                worker.hostname,
                self.channels,
                self.threads,
                self._relay,
                worker,
                pool_keeps_limits=self.pool_keeps_limits,
            )
            let_consumers_wait()
            held_messages.clear()
            self.crew.start()
        logger.info("%s", self.described, extra={"action": "sources_started"})
        self._announcer.start()

    def close(self, worker: Any) -> None:
        """Begin no more messages, as the worker is told to end."""
        shutdown.begin()
        if self.crew is not None:
            self.crew.stop()
        if self.supervisor is not None:
            self.supervisor.stop("cold" if celery_state_internals.is_told_to_end_at_once() else "warm")

    def stop(self, worker: Any) -> None:
        """Stop; a warm shutdown waits for running consumers."""
        self.close(worker)
        if self.crew is not None:
            self.crew.wait()
            self.crew.close()
        while self.supervisor is not None and not self.supervisor.wait(LOOK_EVERY):
            if celery_state_internals.is_told_to_end_at_once():  # a cold shutdown after all
                self._cut(self.supervisor)
        self._announcer.stop()

    def _cut(self, supervisor: Supervisor) -> None:
        supervisor.stop("cold")
        if not supervisor.wait(CUT_WITHIN):  # a process is suspended, or its main thread is blocked
            supervisor.kill()
            supervisor.wait()

    def terminate(self, worker: Any) -> None:
        """Stop; a cold shutdown kills processes with running consumers, but cannot kill threads."""
        if self.supervisor is not None:
            if self._softly:
                self.supervisor.stop("warm")
                self.supervisor.wait(self._softly)
            self._cut(self.supervisor)
        self.stop(worker)

    def wait_softly(self) -> None:
        """Let running consumers finish within ``worker_soft_shutdown_timeout``, as Celery does with tasks.

        Celery calls this in a signal handler, and the interrupted thread may hold a lock; so another thread does the
        work.
        """
        seconds = float(self._worker.app.conf.worker_soft_shutdown_timeout)
        if greenlets.are_threads():  # the handler may run in gevent's hub, which cannot wait; so terminate() waits
            self._softly = seconds
            self._celery_waits()
        elif seconds > 0 and self.channels:
            until = monotonic() + seconds
            ending = threading.Thread(target=self._finish, name="channelsq-soft-shutdown", daemon=True)
            ending.start()
            self._celery_waits()
            ending.join(max(0.0, until - monotonic()))
        else:
            self._celery_waits()

    def _finish(self) -> None:
        self.close(self._worker)
        if self.crew is not None:
            self.crew.wait()
        if self.supervisor is not None:
            self.supervisor.wait()

    def info(self, worker: Any) -> dict[str, Any]:  # type: ignore[override]  # as Celery's own steps
        """Return the sources' part of ``inspect stats``."""
        version = {"channelsq": __version__, "wire": WIRE_VERSION}
        states = {alias: self.streaming(alias)._asdict() for alias in self.channels}
        return {self.label: {"runs": self.described, "reads": self.channels, "streaming": states, **version}}

    def _announced_on(self, alias: str) -> dict[str, Any]:
        """Return the announcement on a layer, for operators; see :class:`channelsq.core.wire_version.Announced`."""
        state = self.streaming(alias)
        streaming = {"streaming": state.running, "streaming_limit": state.limit}
        return {"channels": self.channels[alias][:_MOST_ANNOUNCED], "runs": self.described, **streaming}

    # -- Settings

    def _number_of_processes(self) -> int:
        chosen = max(self._chosen("processes"), default=None)
        if chosen is not None:
            return chosen
        return int(self.pool_keeps_limits)

    def _number_of_threads(self) -> int:
        chosen = max(self._chosen("threads"), default=None)
        pool = self._worker.pool_cls.__module__
        if chosen is not None:
            return chosen
        if "solo" in pool:
            return 1
        return DEFAULT_THREADS if "prefork" in pool else int(self._worker.concurrency)

    @property
    def pool_keeps_limits(self) -> bool:
        """True if Celery's pool can kill a task that takes too long."""
        return "prefork" in self._worker.pool_cls.__module__

    def _chosen(self, name: str) -> Iterator[int]:
        for alias in self.channels:
            number = getattr(channel_layers[alias], name)
            if number is not None:
                yield number

    @property
    def described(self) -> str:
        """A description of the threads or processes that run consumers."""
        if not self.channels:
            return "no channel is read"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        if not self.processes:
            if greenlets.are_threads():
                threads = threads.replace("thread", "greenlet")
            return f"consumers run in {threads} of the worker"
        processes = "a process" if self.processes == 1 else f"{self.processes} processes"
        return f"consumers run in {processes} of {threads}"

    # -- Events

    def tell_of_events(self) -> None:
        """Tell the processes whether events are enabled."""
        if self.supervisor is not None:
            self.supervisor.tell("events", events=self._relay.enabled)

    # -- Questions and orders

    def streaming(self, alias: str) -> Streaming:
        """Return the streaming responses to a layer's requests in this worker."""
        return streaming.responses_of(alias).state if self.supervisor is None else self.supervisor.streaming(alias)

    def ask(self, what: str) -> list[Any]:
        """Return the answers of all parts; see :func:`channelsq.worker.sources.held_messages.answer`."""
        if self.supervisor is not None:
            return list(self.supervisor.ask(what))
        return [] if self.crew is None else [held_messages.answer(what)]

    def read(self, alias: str, channel: str) -> None:
        """Read one more channel, also of a layer that this worker has not read before."""
        channels = self.channels.setdefault(alias, [])
        if channel in channels:
            return
        channels.append(channel)
        if alias not in self._announced:
            self._announced.add(alias)
            self._announcer.add(channel_layers[alias])
        if self.crew is None and self.supervisor is None:
            self._start(self._worker)
            return
        for part in (self.crew, self.supervisor):
            if part is not None:
                part.read(alias, channel)

    def cease(self, alias: str, channel: str) -> None:
        """Stop reading a channel."""
        if channel in self.channels.get(alias, ()):
            self.channels[alias].remove(channel)
            for part in (self.crew, self.supervisor):
                if part is not None:
                    part.cease(alias, channel)
