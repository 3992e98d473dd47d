"""The metrics of a gateway, in the text format of Prometheus; docs/interface-servers.md describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, exposition, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from channelsq.interface.basis.counters import Counters
from channelsq.version import __version__

#: The gauges, with their HELP lines.
GAUGES = {
    "connections": "Connected clients, of every protocol.",
    "sending": "Messages of the application that are being sent out.",
    "reply_channels": "Clients' messages that can be answered through their reply channels.",
    "broker_reachable": "1 if the broker was reachable last, else 0.",
}


class GatewayMetrics:
    """The metrics of one gateway.

    Args:
        protocol: its protocol.
        stats: its counters.
        gauges: returns the current values of :data:`GAUGES`, by name.
    """

    content_type = exposition.CONTENT_TYPE_LATEST

    def __init__(self, protocol: str, stats: Counters, gauges: Callable[[], dict[str, float]]) -> None:
        self._protocol = protocol
        self._stats = stats
        self._gauges = gauges
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        labels = {"version": __version__, "protocol": self._protocol}
        yield InfoMetricFamily("channelsq_gateway", "The gateway's version and protocol.", labels)
        values = self._gauges()
        for name, help_text in GAUGES.items():
            yield GaugeMetricFamily(f"channelsq_gateway_{name}", help_text, value=values[name])
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
