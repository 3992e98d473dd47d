"""The Celery tasks of a layer's consumers, and the choice of the task for a message."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import Celery

from channelsq.message import Message
from channelsq.routing import consumed_channels
from channelsq.utils import name_that_thing
from channelsq.worker.running.consumer_task import ConsumerTask, make_consumer_task
from channelsq.worker.running.execution import report_failed

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.routing import Consumer

logger = logging.getLogger("channelsq.worker")


class ConsumerTasks:
    """The tasks of one layer's consumers.

    Args:
        app: the Celery app in which the tasks are registered.
        layer: the layer whose routing is read.
        http_consumer: the consumer of HTTP requests that no route claims, in place of Django's views.
    """

    def __init__(self, app: Celery, layer: ChannelLayerWrapper, http_consumer: Consumer | None = None) -> None:
        self.app = app
        self.layer = layer
        layer.router.check_default(http_consumer)
        self._names: dict[int, str] = {}
        self._tasks: Any = app.tasks  # kept here, as the app's property takes a lock
        taken = {name for name, task in app.tasks.items() if getattr(task, "layer", None) is not layer}
        for route in layer.router.routes():
            if id(route.consumer) in self._names:
                continue
            # Two consumers may share a dotted path (made in a loop, or one class under several as_route());
            # every process reads the same routing in the same order, so a number tells them apart everywhere.
            base = name = name_that_thing(route.consumer)
            number = 1
            while name in taken:
                number += 1
                name = f"{base}#{number}"
            taken.add(name)
            self._names[id(route.consumer)] = name
            if name not in app.tasks:
                make_consumer_task(app, layer, route.consumer, name)

    @property
    def channels(self) -> list[str]:
        """The channels that workers consume."""
        return consumed_channels(self.layer.router)

    def resolve(self, message: Message) -> tuple[ConsumerTask, dict[str, Any], bool] | None:
        """Return the task for ``message``, its route's keyword arguments and ``ordered``; None if unrouted."""
        resolved = self.layer.router.resolve(message)
        if resolved is None:
            return None
        route, kwargs = resolved
        return self.task_of(route.consumer), {**kwargs}, route.ordered

    def task_of(self, consumer: Consumer) -> ConsumerTask:
        """Return the task of a route's consumer."""
        return self._tasks[self._names[id(consumer)]]  # type: ignore[no-any-return]


def log_unrouted(message: Message) -> None:
    """Log that no route claims ``message``, and report it as failed so that no client waits for it."""
    logger.error(
        "channel %s: no route claims a message with keys %s%s; it was dropped",
        message.channel.name,
        sorted(message.content),
        f" and path {message['path']!r}" if "path" in message else "",
        extra={"action": "unrouted", "channel": message.channel.name},
    )
    report_failed(message)


_tasks_of: dict[int, dict[str, ConsumerTasks]] = {}


def tasks_of(app: Celery) -> dict[str, ConsumerTasks]:
    """Return the consumers of ``app``, by the aliases of the layers that its workers consume."""
    return _tasks_of.setdefault(id(app), {})
