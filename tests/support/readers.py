"""Threads of a test's process that read a layer as a worker does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from channelsq import Channel, route
from channelsq.layers import KombuChannelLayer
from channelsq.layers.amqp.amqp_source import AmqpSource
from channelsq.worker.sources.crew import Crew
from tests.support.fakes.workers import FakeEvents
from tests.support.sources import app_with_source


class Reader:
    """A layer with one channel, which threads of this process read.

    Args:
        layer: the layer.
        run: the channel's consumer.
        threads: how many.
    """

    def __init__(self, layer: KombuChannelLayer, run: Callable[..., Any], threads: int) -> None:
        self._app = app_with_source([route("work", run)], layer=layer)
        app, tasks = self._app.__enter__()
        self.layer = tasks.layer
        self.crew = Crew(app, "tests@here", {"default": ["work"]}, threads, FakeEvents(), self)
        self.source: Any = self.crew.readers["default"].source
        self.crew.start()

    def send(self, number: int = 0) -> None:
        """Send a message."""
        Channel("work", channel_layer=self.layer).send({"number": number})

    def cut(self) -> None:
        """Cut the connection, as a network does."""
        connection = self.source._connection
        if isinstance(self.source, AmqpSource):
            connection.abort()
            return
        connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)

    @property
    def left(self) -> int:
        """The number of messages on the broker that no consumer holds."""
        return int(self.layer.depth("work"))

    def close(self) -> None:
        """Finish what runs, and end."""
        self.crew.stop()
        self.crew.wait()
        self.crew.close()
        assert self.left == 0
        self.end()

    def end(self) -> None:
        """Close the layer."""
        self.layer.close()
        self._app.__exit__(None, None, None)
