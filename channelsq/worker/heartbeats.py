"""AMQP heartbeats of a worker in the solo pool, whose event loop stands still while a task runs.

RabbitMQ would take a worker that is at a task for longer than some 20 seconds for dead, and give its messages to
others.  So a thread beats for the event loop while that stands still.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any


class Pulse(threading.Thread):
    """Sends what heartbeats a worker's event loop does not.

    Args:
        consumer: Celery's, whose connections these are.
        interval: seconds between heartbeats that were asked for; the broker may have agreed on less.
    """

    def __init__(self, consumer: Any, interval: float) -> None:
        super().__init__(name="channelsq-pulse", daemon=True)
        self._consumer = consumer
        self._every = interval / 4

    def run(self) -> None:
        """Look again and again, as long as the process lives."""
        pause = threading.Event()
        while not pause.wait(self._every):
            for connection in (self._consumer.connection, getattr(self._consumer.event_dispatcher, "connection", None)):
                # It may be lost, or made anew, at any moment; the event loop notices that when it goes on.
                with suppress(Exception):
                    if connection is not None and connection.connected:
                        beat_for(connection.connection)


def beat_for(connection: Any) -> None:
    """Send a heartbeat on py-amqp's connection, if one is overdue."""
    # Celery sends two or three in an interval, the first when a part of it is over: 0 means none yet.
    now, interval = time.monotonic(), connection.heartbeat
    if interval and now - connection.last_heartbeat_sent > interval * 0.75:
        connection.send_heartbeat()
        connection.last_heartbeat_sent = now
        # Messages that have come from the broker meanwhile are not read yet.
        connection.last_heartbeat_received = now


def install(sender: Any = None, **kwargs: Any) -> None:
    """Receiver of ``worker_ready``: start the thread where it is needed."""
    pool = type(getattr(sender, "pool", None)).__module__
    if pool == "celery.concurrency.solo" and sender.amqheartbeat and sender.connection.supports_heartbeats:
        Pulse(sender, float(sender.amqheartbeat)).start()
