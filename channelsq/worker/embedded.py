"""Workers in threads of this process, for layers that live in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.utils.nodenames import gethostname
from django.db import connections

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.signals import worker_process_ready, worker_ready
from channelsq.worker.running import database_connections, in_place
from channelsq.worker.running.consumer_tasks import ConsumerTasks
from channelsq.worker.sources.crew import Crew

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.routing import Consumer

#: The default number of threads of an embedded worker.
DEFAULT_THREADS = 8


def in_process_layers() -> list[ChannelLayerWrapper]:
    """Return the configured layers that only this process can consume."""
    layers = [channel_layers[alias] for alias in channel_layers.configs]
    return [layer for layer in layers if layer.in_process]


class _NoEvents:
    """Disabled Celery events of consumers."""

    enabled = False

    def of(self, identity: str) -> None:
        """Return None: events are not sent."""


class EmbeddedWorker:
    """Threads that read a layer and run its consumers, as a Celery worker does.

    Retries wait for their countdown, and rate limits are kept; time limits, remote control and events need a real
    worker.

    Args:
        layer: the layer to consume.
        threads: the number of consumers that run at once.
        http_consumer: the consumer of HTTP requests that no route claims, in place of Django's views.
        shared_connections: Django's database connections, by alias, for the threads to use in place of their own.
    """

    def __init__(
        self,
        layer: ChannelLayerWrapper,
        threads: int = DEFAULT_THREADS,
        http_consumer: Consumer | None = None,
        shared_connections: Mapping[str, Any] | None = None,
    ) -> None:
        self.layer = layer
        self._shared_connections = shared_connections or {}
        self._tasks = ConsumerTasks(conf.celery_app(), layer, http_consumer)
        self._stopping = threading.Event()
        self._threads = threads
        self._crew: Crew | None = None

    def start(self) -> None:
        """Start taking messages."""
        database_connections.look_after_consumers()
        alias = self.layer.alias
        # No prefetch, so that a channel holds as many messages as its capacity allows.
        self._crew = Crew(
            self._tasks.app,
            f"embedded@{gethostname()}",
            {alias: self._tasks.channels},
            self._threads,
            _NoEvents(),
            self,
            tasks={alias: self._tasks},
            credit=self._threads,
            around=self._around,
        )
        self._crew.start()
        if not self._shared_connections:  # a test's database is not for further threads
            in_place.begin(self.layer.channel_layer)
        worker_ready.send(sender=self)
        worker_process_ready.send(sender=self)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop reading; return when running consumers are done, or after ``timeout`` seconds."""
        self._stopping.set()
        in_place.end(self.layer.channel_layer)
        crew = self._crew
        if crew is not None:
            crew.stop()
            if crew.wait(timeout):
                crew.close()
                self._crew = None

    def wait(self) -> None:
        """Return when the worker has been stopped."""
        self._stopping.wait()

    @contextmanager
    def _around(self) -> Iterator[None]:
        for alias, connection in self._shared_connections.items():
            connections[alias] = connection
        database_connections.here.are_shared = bool(self._shared_connections)
        try:
            yield
        finally:
            self._close_connections()

    def _close_connections(self) -> None:
        """Close this thread's database connections, so that tests can drop their databases."""
        for connection in connections.all(initialized_only=True):
            if connection is not self._shared_connections.get(connection.alias):
                connection.close()
