"""An interface's link to a layer, without an interface around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link import Link, link_for
from channelsq.interface.link.replies import Replies
from channelsq.layers.contract.layer_contract import BaseChannelLayer


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
