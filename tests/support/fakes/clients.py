"""A publisher of an interface server, and sockets and requests that get its results."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from channelsq.interface.link import Publication
from channelsq.interface.link.replies import Delivery
from channelsq.layers.contract.layer_values import Send


class RecordingLink:
    """A link that keeps what it is to publish."""

    def __init__(self) -> None:
        self.sends: list[Send] = []

    def submit(self, publication: Publication) -> None:
        self.sends.append(publication.send)


class RecordingPublisher:
    """A publisher that keeps what came of its messages."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Exception | None]] = []

    def published(self, order: int, error: Exception | None) -> None:
        self.told.append((order, error))


class FakePublisher:
    """A publisher of one message, whose outcome is awaited."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def published(self, order: int, error: Exception | None) -> None:
        self.outcome.set_result(error)


class RecordingSocket:
    """A WebSocket's side of its turns."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def fail(self, code: int, reason: str) -> None:
        self.told.append((code, reason))

    def progress(self) -> None:
        self.told.append("progress")


class RecordingReceiver:
    """A client of the reply queues.

    Args:
        told: keeps what comes.
        fails: whether it raises, then.
    """

    def __init__(self, told: list[Any], *, fails: bool = False) -> None:
        self._told = told
        self._fails = fails

    def on_reply(self, delivery: Delivery) -> None:
        self._told.append((delivery.message, delivery.group))
        if self._fails:
            raise RuntimeError("the client's fault")

    def on_done(self, order: int) -> None:
        self._told.append(order)


@dataclass
class FakeDelivery:
    """A reply, as a connection looks at it."""

    message: dict[str, Any]
    size: int = 1
    group: str | None = None


class RecordingTicker:
    """A socket that is told the time.

    Args:
        looks: keeps each look of each of them.
    """

    def __init__(self, looks: list[RecordingTicker]) -> None:
        self.looks = looks
        self.leaves: set[RecordingTicker] | None = None

    def on_tick(self, now: float) -> None:
        self.looks.append(self)
        if self.leaves is not None:
            self.leaves.clear()
