"""Answers Prometheus: what this process knows, and what it must ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, exposition, generate_latest
from prometheus_client.metrics_core import Metric

from channelsq import names
from channelsq.interface.depths import Depths
from channelsq.interface.metrics import depth_gauge, registry_of

if TYPE_CHECKING:
    from channelsq.interface.hub import Hub

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST

#: Seconds that a scrape waits for what others are to tell.
PATIENCE = 1.0

_WEBSOCKET = (names.WEBSOCKET_CONNECT, names.WEBSOCKET_RECEIVE, names.WEBSOCKET_DISCONNECT)


class Scrape:
    """The metrics of one server.

    Args:
        hub: what all connections share.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._registry = registry_of(hub)
        http = (names.HTTP_REQUEST, names.HTTP_DISCONNECT) if hub.config.http == "channel" else ()
        self._depths = Depths(hub.layer.channel_layer, (*http, *_WEBSOCKET))

    async def page(self) -> bytes:
        """All of them, in Prometheus' text format; within about a second, whoever is away."""
        depths = await self._depths.ask(PATIENCE) if self._hub.link.reachable else {}
        return generate_latest(_Given([*self._registry.collect(), *depth_gauge(depths)]))


class _Given(CollectorRegistry):
    """Metrics that are there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
