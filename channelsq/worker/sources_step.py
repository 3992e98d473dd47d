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

#: Threads of a channel process whose number nobody chose.
DEFAULT_THREADS = 8

#: Seconds between two looks at whether a warm shutdown has become a cold one.
LOOK_EVERY = 0.2

#: Channels that are announced at most.
_MOST_ANNOUNCED = 1000

#: Seconds that a channel process has to end in a cold shutdown.
CUT_WITHIN = 5.0


class Sources(bootsteps.StartStopStep):
    """Reads the channel layers, beside Celery's own broker and pool.

    Celery restarts the steps of its *consumer* when its broker is lost, or is absent at the start; this is a step of
    the worker itself, which goes on meanwhile.

    Args:
        worker: Celery's.
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
        #: How many consumers of a layer run at once, in each process.
        self.threads = self._number_of_threads() if channel_threads is None else channel_threads
        #: How many processes run consumers; 0 if threads of the worker do.
        self.processes = self._number_of_processes() if channel_processes is None else channel_processes
        conf.sends_events()  # settings that cannot be used end the worker here, not its first message
        #: When channel processes are replaced, see :func:`channelsq.conf.recycled_after`.
        self._recycled_after = {f"max_{limit}": conf.recycled_after(limit) for limit in ("messages", "memory")}
        self._relay = Relay(worker)
        # Of Celery 5.5 and later.
        self._celery_waits: Callable[[], None] = getattr(worker, "wait_for_soft_shutdown", lambda: None)
        worker.wait_for_soft_shutdown = self.wait_softly
        self._has_told_of_process = False
        self._softly = 0.0  # seconds that a cold shutdown gives channel processes
        self.crew: Crew | None = None
        self.supervisor: Supervisor | None = None
        layers = [channel_layers[alias] for alias in self.channels]
        self._announcer = Announcer(worker.hostname, layers, self._announced_on)
        self._announced = set(self.channels)

    # -- Celery's

    def create(self, worker: Any) -> None:
        """Let the project's set-up code run before Celery's consumer, and its tracers, are made."""
        if self.channels and not self.processes and not self.pool_keeps_limits:
            self._tell_of_process()

    def _tell_of_process(self) -> None:
        """Send ``worker_process_init`` for the threads that run consumers here, which Celery sends for processes alone.

        Its solo pool sends it, too.
        """
        if not self._has_told_of_process and "solo" not in self._worker.pool_cls.__module__:
            signals.worker_process_init.send(sender=self._worker.hostname)
        self._has_told_of_process = True

    def start(self, worker: Any) -> None:
        """Start reading."""
        if self.channels:
            self._start(worker)

    def _start(self, worker: Any) -> None:
        for problem in consumer_limits.problems(worker.app, self.channels, pool_keeps_limits=self.pool_keeps_limits):
            logger.warning("%s", problem, extra={"action": "time_limits"})
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
        """Begin nothing more, as the worker is told to end."""
        shutdown.begin()
        if self.crew is not None:
            self.crew.stop()
        if self.supervisor is not None:
            self.supervisor.stop("cold" if celery_state_internals.is_told_to_end_at_once() else "warm")

    def stop(self, worker: Any) -> None:
        """End; a warm shutdown waits for the consumers that run."""
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
        if not supervisor.wait(CUT_WITHIN):  # one is stopped, or does not let its main thread run
            supervisor.kill()
            supervisor.wait()

    def terminate(self, worker: Any) -> None:
        """End; a cold shutdown ends the processes, with the consumers that run, but cannot end threads."""
        if self.supervisor is not None:
            if self._softly:
                self.supervisor.stop("warm")
                self.supervisor.wait(self._softly)
            self._cut(self.supervisor)
        self.stop(worker)

    def wait_softly(self) -> None:
        """Let consumers that run finish within ``worker_soft_shutdown_timeout``, as Celery does its own tasks.

        Celery calls this in the handler of a signal, which may have come while this thread held a lock; so all is
        done in another.
        """
        seconds = float(self._worker.app.conf.worker_soft_shutdown_timeout)
        if greenlets.are_threads():  # the handler may run in gevent's hub, which cannot wait: terminate() does
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
        """Return what ``inspect stats`` tells of the sources."""
        version = {"channelsq": __version__, "wire": WIRE_VERSION}
        states = {alias: self.streaming(alias)._asdict() for alias in self.channels}
        return {self.label: {"runs": self.described, "reads": self.channels, "streaming": states, **version}}

    def _announced_on(self, alias: str) -> dict[str, Any]:
        """Return what is announced on a layer, for operators; see :class:`channelsq.core.wire_version.Announced`."""
        state = self.streaming(alias)
        streaming = {"streaming": state.running, "streaming_limit": state.limit}
        return {"channels": self.channels[alias][:_MOST_ANNOUNCED], "runs": self.described, **streaming}

    # -- how

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
        """Whether Celery's pool can end a task that takes too long."""
        return "prefork" in self._worker.pool_cls.__module__

    def _chosen(self, name: str) -> Iterator[int]:
        for alias in self.channels:
            number = getattr(channel_layers[alias], name)
            if number is not None:
                yield number

    @property
    def described(self) -> str:
        """Where consumers run, in words."""
        if not self.channels:
            return "no channel is read"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        if not self.processes:
            if greenlets.are_threads():
                threads = threads.replace("thread", "greenlet")
            return f"consumers run in {threads} of the worker"
        processes = "a process" if self.processes == 1 else f"{self.processes} processes"
        return f"consumers run in {processes} of {threads}"

    # -- events

    def tell_of_events(self) -> None:
        """Tell the processes whether events are wanted."""
        if self.supervisor is not None:
            self.supervisor.tell("events", events=self._relay.enabled)

    # -- questions

    def streaming(self, alias: str) -> Streaming:
        """Return the streaming responses to a layer's requests in this worker."""
        return streaming.responses_of(alias).state if self.supervisor is None else self.supervisor.streaming(alias)

    def ask(self, what: str) -> list[Any]:
        """Return what every part answers; see :func:`channelsq.worker.sources.held_messages.answer`."""
        if self.supervisor is not None:
            return list(self.supervisor.ask(what))
        return [] if self.crew is None else [held_messages.answer(what)]

    def read(self, alias: str, channel: str) -> None:
        """Read one more channel, of a layer that may be new to this worker."""
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
        """Read a channel no more."""
        if channel in self.channels.get(alias, ()):
            self.channels[alias].remove(channel)
            for part in (self.crew, self.supervisor):
                if part is not None:
                    part.cease(alias, channel)
