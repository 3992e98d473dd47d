"""The metrics of several processes that serve together, as one page; needs prometheus_client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

#: Seconds that a scrape waits for the answers of others.
PATIENCE = 1.0


def packed(metrics: Iterable[Metric]) -> bytes:
    """Return metrics in the form in which processes exchange them."""
    return json.dumps(
        [
            [each.name, each.documentation, each.type, [(s.name, s.labels, s.value) for s in each.samples]]
            for each in metrics
        ]
    ).encode()


def merged(told: Mapping[int, bytes]) -> list[Metric]:
    """Return the metrics of several processes, each value with the label ``process``.

    Args:
        told: the results of :func:`packed`, by the number of the process.
    """
    result: dict[str, Metric] = {}
    for number, text in sorted(told.items()):
        metrics: list[list[Any]] = json.loads(text)
        for name, documentation, kind, samples in metrics:
            metric = result.get(name)
            if metric is None:
                metric = result[name] = Metric(name, documentation, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, {**labels, "process": str(number)}, value)
    return list(result.values())


class Given(CollectorRegistry):
    """A registry of given metrics."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
