"""The sources and runners of one process, whether that is the worker itself or one of its channel processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import monotonic
from typing import Any

from celery import Celery
from celery.app import trace

from channelsq.core import streaming
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.consumer_tasks import ConsumerTasks, tasks_of
from channelsq.worker.sources.consumer_request import Events
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.reader import Reader
from channelsq.worker.sources.runner import Runner

#: How many messages a source holds for each thread, and at least.  It asks for no more than are handled in some
#: milliseconds, so that slow consumers leave the others to other workers.
PREFETCH, LEAST = 4, 32


class Crew:
    """Reads layers and runs their consumers in threads of this process.

    Args:
        app: the Celery app.
        hostname: the worker's.
        channels: the channels to read, by the alias of their layer.
        threads: how many consumers of a layer run at once.
        events: where events go.
        sender: of Celery's signal ``task_received``.
        opened: is told the alias of a layer and the name under which its messages are held, at each connection.
        pool_keeps_limits: whether Celery's pool can end a task that takes too long.
        reluctance: seconds for which it leaves what dead consumers hold, at first.
        tasks: the consumers of each layer; those of the app's workers if left out.
        credit: how many messages of a layer it holds at once; by the threads if left out.
        around: makes the context in which each thread runs.
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
        self._told = hostname, events, sender
        self._opened = opened
        self._pool_keeps_limits = pool_keeps_limits
        self._reluctance = reluctance
        for alias, names in channels.items():
            self._add(alias, names)

    def _add(self, alias: str, channels: Sequence[str]) -> Runner:
        """Make what reads a layer, and return its runner, which is not started."""
        tasks = self._tasks[alias]
        _trace(tasks, self._told[0])
        layer = tasks.layer.channel_layer
        streaming.set_limit(alias, layer.streaming_responses, self.threads)
        intake = Intake(tasks, *self._told, pool_keeps_limits=self._pool_keeps_limits)
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
        """Begin nothing more; what was not begun is left to other workers.  Safe to call again."""
        for runner in self._runners:
            runner.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the consumers that run are done, or for some seconds; return whether they are."""
        until = None if seconds is None else monotonic() + seconds
        return all(runner.wait(until) for runner in self._runners)

    def cut(self) -> None:
        """Send the outcomes of finished consumers, and leave what runs, which ends with the process, to others."""
        for reader in self.readers.values():
            reader.cut()

    def close(self) -> None:
        """Give back what is held, and close the connections."""
        for reader in self.readers.values():
            reader.close()

    def read(self, alias: str, channel: str) -> None:
        """Read one more channel, of a layer that may be new."""
        if alias in self.readers:
            self.readers[alias].read(channel)
        else:
            self._add(alias, [channel]).start()

    def cease(self, alias: str, channel: str) -> None:
        """Read a channel no more."""
        self.readers[alias].cease(channel)


def _trace(tasks: ConsumerTasks, hostname: str) -> None:
    """Give consumers' tasks a tracer, as Celery does when its own broker is connected.

    Tools that watch tasks may have replaced ``build_tracer`` since this module was imported.
    """
    for name, task in tasks.app.tasks.items():
        if isinstance(task, ConsumerTask) and task.layer is tasks.layer:
            task.__trace__ = trace.build_tracer(name, task, tasks.app.loader, hostname, app=tasks.app)
