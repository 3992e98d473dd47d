"""The answer to a scrape by Prometheus: this process' metrics, and those that it must ask for."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from prometheus_client import exposition, generate_latest

from channelsq.core import names
from channelsq.interface.context.histograms import WEBSOCKET
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.context.unanswered import Asked, depths, streams
from channelsq.interface.pages.metric_names import depth_gauge, processes_gauge, registry_of, streaming_gauges
from channelsq.interface.supervision.merged_metrics import PATIENCE, Given, merged, packed

T = TypeVar("T")


class Scrape:
    """The metrics of one server, and of the processes that serve together with it.

    Args:
        context: the state that all connections share.
    """

    #: The content type of :meth:`page`.
    content_type = exposition.CONTENT_TYPE_LATEST.encode()

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._registry = registry_of(context)
        http = (names.HTTP_REQUEST, names.HTTP_DISCONNECT) if context.config.http == "channel" else ()
        layer, alias = context.layer.channel_layer, context.layer.alias
        self._depths = Asked(lambda: depths(layer, (*http, *WEBSOCKET)), "the depths of channels")
        self._streams = Asked(lambda: streams(layer, alias), "streaming responses")

    async def join(self) -> None:
        """Answer the other processes from now on."""
        if self._context.peers is not None:
            await self._context.peers.join(lambda: packed(self._registry.collect()))

    async def page(self) -> bytes:
        """Return all metrics in Prometheus' text format; takes about a second at most, even if others do not answer."""
        waiting, streaming, others = await asyncio.gather(
            self._ask(self._depths), self._ask(self._streams), self._ask_others()
        )
        own = list(self._registry.collect())
        peers = self._context.peers
        if peers is not None:
            own = merged({peers.number: packed(own), **others})
        asked = *depth_gauge(waiting), *streaming_gauges(streaming)
        return generate_latest(Given([*own, processes_gauge(1 + len(others)), *asked]))

    async def _ask(self, question: Asked[T]) -> dict[str, T]:
        return await question.ask(PATIENCE) if self._context.link.reachable else {}

    async def _ask_others(self) -> dict[int, bytes]:
        return {} if self._context.peers is None else await self._context.peers.ask(PATIENCE)
