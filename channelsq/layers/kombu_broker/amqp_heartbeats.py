"""AMQP heartbeats of a source that does not read its connection while all of its threads run consumers.

Otherwise RabbitMQ would close the connection after some 20 seconds, and redeliver its messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu import Connection


class Pulse(threading.Thread):
    """Sends the heartbeats that a connection's own reader does not send.

    Args:
        connection: returns the connection, or None if there is none.
        interval: requested seconds between heartbeats; the broker may have agreed on less.
    """

    def __init__(self, connection: Callable[[], Connection | None], interval: float) -> None:
        super().__init__(name="channelsq-pulse", daemon=True)
        self._connection = connection
        self._every = interval / 4
        self._ended = threading.Event()

    def stop(self) -> None:
        """End."""
        self._ended.set()

    def run(self) -> None:
        """Check the heartbeats regularly, until :meth:`stop`."""
        while not self._ended.wait(self._every):
            # The connection may be lost or replaced at any moment; its reader notices that when it continues.
            with suppress(Exception):
                connection = self._connection()
                if connection is not None and connection.connected:
                    beat_for(connection.connection)


def beat_for(connection: Any) -> None:
    """Send a heartbeat on py-amqp's connection, if one is overdue."""
    now, interval = time.monotonic(), connection.heartbeat
    if interval and now - connection.last_heartbeat_sent > interval * 0.75:
        connection.send_heartbeat()
        connection.last_heartbeat_sent = now
        # The broker's messages since then have not been read yet.
        connection.last_heartbeat_received = now
