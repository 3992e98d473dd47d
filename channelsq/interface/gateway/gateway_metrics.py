"""The metrics of a gateway, in the text format of Prometheus.

docs/how-to/extend/interface-servers.md describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, exposition, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from channelsq.interface.basis.counters import Counters
from channelsq.interface.supervision.merged_metrics import PATIENCE, Given, merged, packed
from channelsq.interface.supervision.peers import Peers
from channelsq.version import __version__

#: The gauges, with their HELP lines.
GAUGES = {
    "connections": "Connected clients, of every protocol.",
    "sending": "Messages of the application that are being sent out.",
    "reply_channels": "Clients' messages that can be answered through their reply channels.",
    "broker_reachable": "1 if the broker was reachable last, else 0.",
    "processes": "Processes of one --workers whose metrics are included.",
}


class GatewayMetrics:
    """The metrics of one gateway.

    Args:
        protocol: its protocol.
        stats: its counters.
        gauges: returns the current values of :data:`GAUGES` but ``processes``, by name.
    """

    content_type = exposition.CONTENT_TYPE_LATEST

    def __init__(self, protocol: str, stats: Counters, gauges: Callable[[], dict[str, float]]) -> None:
        self._protocol = protocol
        self._stats = stats
        self._gauges = gauges
        self._peers: Peers | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def join(self, peers: Peers) -> None:
        """Exchange the metrics with the processes that serve together with this one from now on."""
        self._peers = peers
        await peers.join(lambda: packed(self._registry.collect()))

    def leave(self) -> None:
        """Stop answering the other processes."""
        if self._peers is not None:
            self._peers.leave()

    async def page(self) -> bytes:
        """Return all metrics; takes about a second at most, even if other processes do not answer."""
        if self._peers is None:
            return self._page(1, self._registry.collect())
        others = await self._peers.ask(PATIENCE)
        own = {self._peers.number: packed(self._registry.collect())}
        return self._page(1 + len(others), merged({**own, **others}))

    @staticmethod
    def _page(processes: int, metrics: Iterable[Metric]) -> bytes:
        gauge = GaugeMetricFamily("channelsq_gateway_processes", GAUGES["processes"], value=processes)
        return generate_latest(Given([*metrics, gauge]))

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        labels = {"version": __version__, "protocol": self._protocol}
        yield InfoMetricFamily("channelsq_gateway", "The gateway's version and protocol.", labels)
        values = self._gauges()
        for name, value in values.items():
            yield GaugeMetricFamily(f"channelsq_gateway_{name}", GAUGES[name], value=value)
        events = CounterMetricFamily("channelsq_gateway_events", "Events by name.", labels=["event"])
        for name, number in sorted(self._stats.as_dict().items()):
            events.add_metric([name.removeprefix("gateway.")], number)
        yield events
        refused = CounterMetricFamily(
            "channelsq_gateway_refused", "Clients' requests that were refused.", labels=["protocol", "status", "reason"]
        )
        for (protocol, status, reason), number in sorted(self._stats.refused.items()):
            refused.add_metric([protocol, str(status), reason], number)
        yield refused
