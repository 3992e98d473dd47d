"""The readers and runners of one process: the worker itself or a channel process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import monotonic
from typing import Any

from celery import Celery

from channelsq.core import streaming
from channelsq.worker.running import celery_tracer_internals
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.consumer_tasks import ConsumerTasks, tasks_of
from channelsq.worker.sources.celery_request_internals import Events
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.reader import Reader
from channelsq.worker.sources.runner import Runner

#: The number of messages that a source holds for each thread, and the minimum.  They are handled within some
#: milliseconds, so that slow consumers leave further messages to other workers.
PREFETCH, LEAST = 4, 32


class Crew:
    """Reads layers and runs their consumers in threads of this process.

    Args:
        app: the Celery app.
        hostname: the worker's hostname.
        channels: the channels to read, by the alias of their layer.
        threads: the number of consumers of a layer that run at once.
        events: the destination of events.
        sender: the sender of Celery's signal ``task_received``.
        opened: called at each connection with the alias of a layer and the consumer name that holds its messages.
        pool_keeps_limits: whether Celery's pool can kill a task that takes too long.
        reluctance: seconds after the start before messages of dead consumers are taken over.
        tasks: the consumers of each layer; by default those of the app's workers.
        credit: the most messages of a layer that are held at once; by default it depends on ``threads``.
        around: returns the context manager in which each thread runs.
    """

    def __init__(
        self,
        app: Celery,
        hostname: str,
        channels: Mapping[str, Sequence[str]],
        threads: int,
        events: Events,
        sender: Any,
        opened: Callable[[str, str], None] = lambda alias, consumer: None,
        *,
        pool_keeps_limits: bool = False,
        reluctance: float = 0.0,
        tasks: Mapping[str, ConsumerTasks] | None = None,
        credit: int | None = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.threads = threads
        self.readers: dict[str, Reader] = {}
        self._runners: list[Runner] = []
        self._tasks = tasks_of(app) if tasks is None else tasks
        self._credit = max(LEAST, threads * PREFETCH) if credit is None else credit
        self._around = around
        self._intake_options = hostname, events, sender
        self._opened = opened
        self._pool_keeps_limits = pool_keeps_limits
        self._reluctance = reluctance
        for alias, names in channels.items():
            self._add(alias, names)

    def _add(self, alias: str, channels: Sequence[str]) -> Runner:
        """Create the reader and the runner of a layer; return the runner, which is not started."""
        tasks = self._tasks[alias]
        _trace(tasks, self._intake_options[0])
        layer = tasks.layer.channel_layer
        streaming.set_limit(alias, layer.streaming_responses, self.threads)
        intake = Intake(tasks, *self._intake_options, pool_keeps_limits=self._pool_keeps_limits)
        reader = Reader(layer, intake, channels, self._credit, partial(self._opened, alias), self._reluctance)
        self.readers[alias] = reader
        runner = Runner(reader, self.threads, f"channelsq-{alias}", self._around)
        self._runners.append(runner)
        return runner

    def start(self) -> None:
        """Start reading."""
        for runner in self._runners:
            runner.start()

    def stop(self) -> None:
        """Begin no more messages, and leave the others to other workers.  Repeated calls are harmless."""
        for runner in self._runners:
            runner.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until running consumers are done, or for some seconds; return whether they are done."""
        until = None if seconds is None else monotonic() + seconds
        return all(runner.wait(until) for runner in self._runners)

    def cut(self) -> None:
        """Send the outcomes of finished consumers; leave running messages to other workers, as the process ends."""
        for reader in self.readers.values():
            reader.cut()

    def close(self) -> None:
        """Give back held messages, and close the connections."""
        for reader in self.readers.values():
            reader.close()

    def read(self, alias: str, channel: str) -> None:
        """Read one more channel, also of a layer that was not read before."""
        if alias in self.readers:
            self.readers[alias].read(channel)
        else:
            self._add(alias, [channel]).start()

    def cease(self, alias: str, channel: str) -> None:
        """Stop reading a channel."""
        self.readers[alias].cease(channel)


def _trace(tasks: ConsumerTasks, hostname: str) -> None:
    """Give consumers' tasks a tracer, as Celery does after it has connected to its broker."""
    for name, task in tasks.app.tasks.items():
        if isinstance(task, ConsumerTask) and task.layer is tasks.layer:
            task.__trace__ = celery_tracer_internals.tracer_of(name, task, tasks.app, hostname)
