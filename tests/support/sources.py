"""A layer on streams beside Celery's broker, and an app that has its consumers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.layers import BaseChannelLayer, RedisChannelLayer
from channelsq.worker.running.consumer_tasks import ConsumerTasks, tasks_of

#: Nothing answers there; most of what is tested needs no connection.
NOWHERE = "redis-streams://127.0.0.1:1/0"


@contextmanager
def app_with_source(
    routing: Any,
    url: str = NOWHERE,
    broker: str = "memory://",
    alias: str = "default",
    layer: BaseChannelLayer | None = None,
    **config: Any,
) -> Iterator[tuple[Celery, ConsumerTasks]]:
    """Make a Celery app, and a layer of it that its workers read by themselves.

    Args:
        routing: the layer's.
        url: the layer's.
        broker: Celery's.
        alias: the layer's.
        layer: another than a RedisChannelLayer.
        config: the RedisChannelLayer's.
    """
    before = conf._celery_app
    with Celery("beside", broker=broker, set_as_current=False) as app:
        conf._celery_app = app
        try:
            wrapper = ChannelLayerWrapper(layer or RedisChannelLayer(url=url, **config), alias, routing)
            tasks = tasks_of(app)[alias] = ConsumerTasks(app, wrapper)
            app.finalize()
            yield app, tasks
        finally:
            conf._celery_app = before
            tasks_of(app).clear()
