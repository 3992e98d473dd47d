"""The step of Celery's worker that starts the sources and their runners."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from celery import bootsteps
from celery.app.trace import build_tracer

from channelsq import shutdown
from channelsq.layers.redis import RedisChannelLayer
from channelsq.worker.consumers import ConsumerTasks, tasks_of
from channelsq.worker.sources import books
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.runner import Runner
from channelsq.worker.sources.selection import selection_of
from channelsq.worker.sources.stream_source import StreamSource
from channelsq.worker.task import ConsumerTask

logger = logging.getLogger("channelsq.worker")

#: How many messages a source holds for each thread.
PREFETCH = 4


class Crew:
    """A source and its runner.

    Args:
        tasks: the layer's consumers.
        channels: which of its channels to read.
        threads: how many consumers run at once.
        intake: makes requests of what comes.
    """

    def __init__(self, tasks: ConsumerTasks, channels: list[str], threads: int, intake: Intake) -> None:
        layer = tasks.layer.channel_layer
        assert isinstance(layer, RedisChannelLayer)
        self.tasks = tasks
        self.threads = threads
        self.source = StreamSource(layer, intake, channels, threads * PREFETCH)
        self.runner = Runner(self.source, threads, f"channelsq-{tasks.layer.alias}")


class Sources(bootsteps.StartStopStep):
    """Reads the channel layers beside Celery's own broker.

    Celery restarts the steps of its *consumer* when its broker is lost, or is absent at the start; this is a step of
    the worker itself, which goes on meanwhile.
    """

    requires = ("celery.worker.components:Pool",)
    label = "Channel layers"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        worker.channelsq_sources = self
        self._worker = worker
        self.crews: list[Crew] = []

    def start(self, worker: Any) -> None:
        """See Celery's."""
        books.reserved.clear()
        books.active.clear()
        books.scheduled.clear()
        self.crews = [*self._make(worker)]
        for crew in self.crews:
            crew.runner.start()

    def _make(self, worker: Any) -> Iterator[Crew]:
        selection = selection_of(worker)
        for alias, tasks in tasks_of(worker.app).items():
            if tasks.layer.has_source and (channels := selection.of(alias)):
                _trace(tasks, worker.hostname)
                intake = Intake(tasks, worker.hostname, self.eventer_of, worker)
                yield Crew(tasks, channels, _threads(worker), intake)

    def eventer_of(self, identity: str) -> Any:
        """Return what events of a message go to; None for nothing."""
        return getattr(getattr(self._worker, "consumer", None), "event_dispatcher", None)

    def close(self, worker: Any) -> None:
        """See Celery's; the worker is told to end, and begins nothing more."""
        shutdown.begin()
        for crew in self.crews:
            crew.runner.stop()

    def stop(self, worker: Any) -> None:
        """See Celery's; a warm shutdown waits for the consumers that run."""
        self.close(worker)
        for crew in self.crews:
            crew.runner.wait()
            crew.source.close()

    def terminate(self, worker: Any) -> None:
        """See Celery's; a cold shutdown leaves the consumers that run to the end of their lease."""
        self.close(worker)


def _threads(worker: Any) -> int:
    """Return how many consumers of a layer run at once: as many as tasks do in the worker's pool."""
    return 1 if "solo" in str(worker.pool_cls.__module__) else int(worker.concurrency)


def _trace(tasks: ConsumerTasks, hostname: str) -> None:
    """Give consumers' tasks a tracer, as Celery does when its own broker is connected."""
    for name, task in tasks.app.tasks.items():
        if isinstance(task, ConsumerTask) and task.layer is tasks.layer:
            task.__trace__ = build_tracer(name, task, tasks.app.loader, hostname, app=tasks.app)
