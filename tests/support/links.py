"""An interface's link to a layer, without an interface around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link import Link, Publication, link_for
from channelsq.interface.link.replies import Delivery, Replies
from channelsq.layers.contract.layer_contract import BaseChannelLayer


class Client:
    """A client of the process: what it was sent, and what became of what it published."""

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


class LinkProcess:
    """One interface process's link, in the running event loop.

    Args:
        layer: the layer.
        make: makes the link; that of the interface, unless it is given.
    """

    def __init__(
        self, layer: BaseChannelLayer, make: Callable[[ChannelLayerWrapper, Counters], Link] = link_for
    ) -> None:
        self.layer = layer
        self.loop = asyncio.get_running_loop()
        self.stats = Counters()
        self.unknown: list[str] = []
        self.replies = Replies(self.loop, self.stats, lambda channel, message: self.unknown.append(channel))
        self.link = make(ChannelLayerWrapper(layer, "default", []), self.stats)


@contextlib.asynccontextmanager
async def linked(
    layer: BaseChannelLayer, make: Callable[[ChannelLayerWrapper, Counters], Link] = link_for
) -> AsyncIterator[LinkProcess]:
    """A link that listens to ``websocket.send!`` and ``http.response!`` channels; stopped at the end."""
    process = LinkProcess(layer, make)
    prefixes = [layer.new_channel(pattern).partition("!")[0] + "!" for pattern in ("websocket.send!", "http.response!")]
    await process.link.start(prefixes, process.replies)
    try:
        yield process
    finally:
        await process.link.stop()


async def until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Let the event loop run until ``condition`` holds; AssertionError if it does not in time (seconds)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not condition():
        assert loop.time() < deadline, f"after {timeout:g} s still not: {what}"
        await asyncio.sleep(0.005)
