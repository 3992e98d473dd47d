"""A client for scripts and tests: a WebSocket that reconnects, JSON, streams and live tasks.

::

    async with Client("wss://example.com/ws/") as client:
        await client.send({"import": "cards.csv"})
        async for content in client:
            print(await client.task(content["ticket"]))

It needs no settings, and imports neither Django nor Celery.  docs/how-to/build/client.md has examples.
"""

from __future__ import annotations

from channelsq.client.client_errors import ClientClosed, ClientError, QueueFull, TaskFailed
from channelsq.client.client_tasks import ClientTask
from channelsq.client.reconnecting import Client, ClientStream
from channelsq.client.task_news import TaskReport, TextChange

__all__ = [
    "Client",
    "ClientClosed",
    "ClientError",
    "ClientStream",
    "ClientTask",
    "QueueFull",
    "TaskFailed",
    "TaskReport",
    "TextChange",
]
