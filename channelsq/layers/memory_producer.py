"""The producer with which Celery publishes a retry of a consumer's task on the in-memory layer."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import kombu

from channelsq.layers.memory_queues import MemoryQueues, Task
from channelsq.layers.wire import codec

#: Kombu's in-memory transport, on which nothing is sent: Celery asks a producer for its connection.
_NOWHERE = "memory://"


class MemoryProducer(kombu.Producer):
    """Puts task messages on channels.

    Args:
        queues: the layer's.
    """

    def __init__(self, queues: MemoryQueues) -> None:
        super().__init__(kombu.Connection(_NOWHERE), auto_declare=False)
        self._queues = queues

    def publish(self, body: Any, routing_key: str | None = None, headers: Any = None, **options: Any) -> None:  # type: ignore[override]
        """Put the task of a consumer on its channel, after its delay.

        Args:
            body: args, kwargs and embed of a Celery task message.
            routing_key: the channel.
            headers: the message's headers.
            options: options for other brokers.

        Raises:
            ChannelFull: too many messages are delayed.
        """
        (channel, content), kwargs, embed = body
        assert channel == routing_key
        eta = headers.get("eta")
        delay = 0.0 if eta is None else datetime.fromisoformat(eta).timestamp() - time.time()
        self._queues.put(channel, codec.dumps(content), delay, Task(headers, kwargs, embed))
