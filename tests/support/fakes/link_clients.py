"""A client of an interface process, as far as the process's link to the layer knows it."""

from __future__ import annotations

from typing import Any

from channelsq.interface.link import Publication
from channelsq.interface.link.replies import Delivery
from tests.support.links import LinkProcess


class RecordingLinkClient:
    """Keeps what it was sent, and what became of what it published."""

    def __init__(self, process: LinkProcess) -> None:
        self.process = process
        self.channel = process.layer.new_channel("websocket.send!")
        self.texts: list[str] = []
        self.done: list[int] = []
        self.outcomes: dict[int, list[Exception | None]] = {}
        #: How many publications a test has published again.
        self.failures = 0
        process.replies.register(self.channel, self)

    def on_reply(self, delivery: Delivery) -> None:
        self.texts.append(delivery.message["text"])

    def on_done(self, order: int) -> None:
        self.done.append(order)

    def published(self, order: int, error: Exception | None) -> None:
        self.outcomes.setdefault(order, []).append(error)

    def publish(
        self, order: int, channel: str = "websocket.receive", patience: float = 0.0, **content: Any
    ) -> Publication:
        """Publish a message; with ``patience`` it may wait that long (seconds) for room."""
        deadline = self.process.loop.time() + patience if patience else 0.0
        send = self.process.layer.prepare(channel, {"order": order, **content})
        publication = Publication(send, self, order, deadline)
        self.process.link.submit(publication)
        return publication

    def errors(self) -> list[Exception]:
        return [error for outcomes in self.outcomes.values() for error in outcomes if error is not None]
