"""Sockets and requests that check what comes for them from workers, and answer nothing."""

from __future__ import annotations

import contextlib

from channelsq.interface.http.response_messages import BadResponse, read_part, read_start
from channelsq.interface.link.replies import Delivery
from channelsq.interface.websocket.application_messages import BadReply
from channelsq.interface.websocket.connection_state import Connection


class FakeSocket:
    """A WebSocket as far as replies go."""

    def __init__(self, channel: str) -> None:
        self.connection = Connection(channel, "/", offered=("a",))
        self.connection.connect({})
        self.connection.take()

    def on_reply(self, delivery: Delivery) -> None:
        if delivery.is_plain:
            delivery.frame()
            delivery.frame(12)
        with contextlib.suppress(BadReply):
            self.connection.reply(delivery)

    def on_done(self, order: int) -> None:
        self.connection.done(order)


class FakeRequest:
    """An HTTP request as far as replies go."""

    def on_reply(self, delivery: Delivery) -> None:
        for method in ("GET", "HEAD"):
            with contextlib.suppress(BadResponse):
                start, part = read_start(delivery.message, method), read_part(delivery.message)
                head = b"".join(name + value for name, value in start.headers)
                assert not {0, 10, 13} & set(head), start
                assert start.bodiless or part.more or start.length == len(part.content), (start, part)

    def on_done(self, order: int) -> None:
        """Requests have no order."""
