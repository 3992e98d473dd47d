"""The answer to a scrape by Prometheus: this process' metrics, and those that it must ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, exposition, generate_latest
from prometheus_client.metrics_core import Metric

from channelsq.core import names
from channelsq.interface.context.histograms import WEBSOCKET
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.context.unanswered import Asked, depths, streams
from channelsq.interface.pages.metric_names import depth_gauge, processes_gauge, registry_of, streaming_gauges

T = TypeVar("T")

#: Seconds that a scrape waits for the answers of others.
PATIENCE = 1.0


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
        return generate_latest(_Given([*own, processes_gauge(1 + len(others)), *asked]))

    async def _ask(self, question: Asked[T]) -> dict[str, T]:
        return await question.ask(PATIENCE) if self._context.link.reachable else {}

    async def _ask_others(self) -> dict[int, bytes]:
        return {} if self._context.peers is None else await self._context.peers.ask(PATIENCE)


def packed(metrics: Iterable[Metric]) -> bytes:
    """Return metrics in the form in which processes exchange them."""
    return json.dumps(
        [
            [each.name, each.documentation, each.type, [(s.name, s.labels, s.value) for s in each.samples]]
            for each in metrics
        ]
    ).encode()


def merged(texts: Mapping[int, bytes]) -> list[Metric]:
    """Return the metrics of several processes, each value with the label ``process``.

    Args:
        texts: the results of :func:`packed`, by the number of the process.
    """
    result: dict[str, Metric] = {}
    for number, text in sorted(texts.items()):
        metrics: list[list[Any]] = json.loads(text)
        for name, documentation, kind, samples in metrics:
            metric = result.get(name)
            if metric is None:
                metric = result[name] = Metric(name, documentation, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, {**labels, "process": str(number)}, value)
    return list(result.values())


class _Given(CollectorRegistry):
    """A collector of given metrics."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
