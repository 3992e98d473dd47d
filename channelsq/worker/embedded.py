"""Workers in threads of this process, for layers that no other process can see."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject
from django.db import close_old_connections, connections, reset_queries

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.core import streaming
from channelsq.delivery import trace_context
from channelsq.exceptions import ChannelLayerError
from channelsq.message import Message
from channelsq.signals import worker_process_ready, worker_ready
from channelsq.worker.running.consumer_tasks import ConsumerTasks, log_unrouted
from channelsq.worker.running.execution import report_done, report_failed

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.routing import Consumer

logger = logging.getLogger("channelsq.worker")

#: Threads of an embedded worker whose number nobody chose.
DEFAULT_THREADS = 8


def in_process_layers() -> list[ChannelLayerWrapper]:
    """The configured layers that nobody but this process can consume."""
    layers = [channel_layers[alias] for alias in channel_layers.configs]
    return [layer for layer in layers if layer.in_process]


class EmbeddedWorker:
    """Threads that take messages off a layer and run consumers, as a Celery worker would.

    Consumers are the same Celery tasks, run in place: signals, retries (at once, whatever their countdown) and
    error logging are Celery's; rate limits, time limits, remote control and events need a real worker.

    Args:
        layer: the layer to consume.
        threads: how many consumers run at once.
        http_consumer: what gets HTTP requests that no route claims, instead of Django's views.
        shared_connections: Django's database connections, by alias, that its threads use in place of their own.
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
        self._threads = [
            threading.Thread(target=self._run, name=f"channelsq-worker-{number}", daemon=True)
            for number in range(1, threads + 1)
        ]

    def start(self) -> None:
        """Start taking messages."""
        streaming.set_limit(self.layer.alias, self.layer.streaming_responses, len(self._threads))
        for thread in self._threads:
            thread.start()
        worker_ready.send(sender=self)
        worker_process_ready.send(sender=self)

    def stop(self, timeout: float = 10.0) -> None:
        """Take no more messages; returns when running consumers are done, or after ``timeout`` seconds."""
        self._stopping.set()
        self.layer.close()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def wait(self) -> None:
        """Return when the worker has been stopped."""
        self._stopping.wait()

    def _run(self) -> None:
        for alias, connection in self._shared_connections.items():
            connections[alias] = connection
        try:
            self._take_messages()
        finally:
            self._close_connections()

    def _close_connections(self) -> None:
        """Close this thread's connections to databases, which would keep a test from dropping one."""
        for connection in connections.all(initialized_only=True):
            if connection is not self._shared_connections.get(connection.alias):
                connection.close()

    def _take_messages(self) -> None:
        channels = self._tasks.channels
        while not self._stopping.is_set():
            try:
                channel, content = self.layer.receive(channels, block=True)
            except ChannelLayerError as error:
                logger.error("%s", error, extra={"action": "receive_failed"})
                self._stopping.wait(1)
            except BaseException:  # out of memory, say
                logger.exception("no message could be received", extra={"action": "receive_failed"})
                self._stopping.wait(1)
            else:
                if channel is not None and content is not None:
                    self._take(channel, content)

    def _take(self, channel: str, content: dict[str, Any]) -> None:
        """Have a message handled; nothing that it does may end the thread that serves all others."""
        message = None
        try:
            message = Message(content, channel, self.layer)
            self._handle(message)
        except BaseException:
            logger.exception(
                "a message from %s could not be handled",
                channel,
                extra={"action": "message_failed", "channel": channel},
            )
            if message is not None:
                report_failed(message)

    def _handle(self, message: Message) -> None:
        resolved = self._tasks.resolve(message)
        if resolved is None:
            log_unrouted(message)
            return
        task, kwargs, ordered = resolved
        identity = str(uuid.uuid4())
        logger.debug(
            "%s -> %s [%s]",
            message.channel.name,
            task.name,
            identity,
            extra={"action": "message_received", "channel": message.channel.name},
        )
        if not ordered:
            report_done(message)
        close_old_connections()
        if not self._shared_connections:  # those are a test's, and so is the log of their queries
            reset_queries()
        try:
            result = task.apply(
                args=(message.channel.name, message.content),
                kwargs=kwargs,
                task_id=identity,
                throw=False,
                headers=trace_context.of_message(message.content),
            )
            if isinstance(result.result, Reject) and getattr(result.result, "requeue", False):
                # What a broker would do, but not in a hot loop.
                self.layer.dispatch((self.layer.prepare(message.channel.name, message.content, delay=0.1),))
        finally:
            close_old_connections()
