"""What ``/-/metrics`` tells: every metric by its name, and how it is made of what was counted and measured.

``docs/metrics.md`` has them for readers.  No label's value comes from a client.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from channelsq.core.streaming import Streaming
from channelsq.interface.context.histograms import Histogram
from channelsq.interface.context.server_context import ServerContext
from channelsq.version import __version__

PREFIX = "channelsq_"


@dataclass(frozen=True, slots=True)
class Told:
    """One metric.

    Args:
        name: without :data:`PREFIX`, and without what Prometheus puts behind the names of counters.
        kind: ``"counter"``, ``"gauge"``, ``"histogram"`` or ``"info"``.
        help: what it says.
        labels: the names of its labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its whole name, as queries have it."""
        return PREFIX + self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


METRICS = (
    Told("interface", "info", "The interface server's version.", ("version",)),
    Told("connections", "gauge", "Clients that are connected, whatever they speak."),
    Told("websockets", "gauge", "WebSockets whose end the application has not been told of."),
    Told("http_waiting", "gauge", "HTTP requests that wait for an answer of one message."),
    Told("http_streaming", "gauge", "HTTP responses that have begun and are not complete."),
    Told("broker_reachable", "gauge", "Whether the broker could be reached last: 1 or 0."),
    Told("processes", "gauge", "Interface processes that the other numbers are of: those of one --workers."),
    Told("queue_messages", "gauge", "Messages in a channel that no worker has taken yet.", ("channel",)),
    Told("worker_streaming", "gauge", "Streaming responses that a worker runs; each holds a thread.", ("worker",)),
    Told("worker_streaming_limit", "gauge", "How many it may run: the bound of all its processes.", ("worker",)),
    Told("websocket_handshakes", "counter", "WebSocket handshakes that were put to the application."),
    Told("websocket_accepted", "counter", "WebSockets that were accepted."),
    Told("websocket_ended", "counter", "WebSockets, and handshakes put to the application, that ended."),
    Told("websocket_closed", "counter", "WebSockets that this server ended because of a client.", ("reason",)),
    Told("websocket_messages_received", "counter", "Messages from WebSocket clients."),
    Told("websocket_messages_sent", "counter", "Messages written to WebSocket clients."),
    Told("websocket_received_bytes", "counter", "Bytes read from WebSockets, as they came: handshakes, frames."),
    Told("websocket_sent_bytes", "counter", "Bytes written to WebSockets, as they go: handshakes, frames."),
    Told("websocket_paused", "counter", "How often a WebSocket was not read for a while: its messages wait."),
    Told("websocket_throttled", "counter", "How often a WebSocket was not read for a while: it sends too fast."),
    Told("websocket_overdue", "counter", "Messages of WebSockets that no worker reported done in time."),
    Told("websocket_bad_replies", "counter", "Messages from the application that a WebSocket cannot do."),
    Told("http_requests", "counter", "HTTP requests, but for those to the server's own pages."),
    Told("http_responses", "counter", "Responses to them, those of this server itself too.", ("status",)),
    Told("http_cut_off", "counter", "Responses that had begun and were not completed.", ("reason",)),
    Told("http_clients_left", "counter", "HTTP clients that left before their response was complete."),
    Told("http_received_bytes", "counter", "Bytes read from HTTP connections."),
    Told("http_sent_bytes", "counter", "Bytes of responses' contents."),
    Told("http_body_waits", "counter", "How often a part of a body waited for room in its channel."),
    Told(
        "refused", "counter", "Requests and handshakes that this server answered itself.",
        ("protocol", "status", "reason"),
    ),
    Told("publish_failures", "counter", "Attempts to publish, or to end memberships, that failed.", ("reason",)),
    Told("replies_dropped", "counter", "Replies of the application that reached no client.", ("reason",)),
    Told("publish_seconds", "histogram", "From a message's hand-out until the broker has it.", ("channel",)),
    Told("reply_seconds", "histogram", "From a message's hand-out until its consumer answers.", ("channel",)),
    Told("consumer_seconds", "histogram", "Of that, the time of the consumer itself, by its worker.", ("channel",)),
    Told("http_request_seconds", "histogram", "From a request's head to the end of its response."),
)  # fmt: skip

_BY_NAME = {each.name: each for each in METRICS}

#: What :class:`channelsq.interface.basis.counters.Counters` counts: the metric, and the value of its label if it has
#: one.
COUNTED: Mapping[str, tuple[str, str | None]] = {
    "websocket.begun": ("websocket_handshakes", None),
    "websocket.accepted": ("websocket_accepted", None),
    "websocket.ended": ("websocket_ended", None),
    "websocket.paused": ("websocket_paused", None),
    "websocket.throttled": ("websocket_throttled", None),
    "websocket.overdue": ("websocket_overdue", None),
    "websocket.bad_replies": ("websocket_bad_replies", None),
    "websocket.slow_clients": ("websocket_closed", "slow_client"),
    "websocket.ping_timeouts": ("websocket_closed", "ping_timeout"),
    "websocket.idle": ("websocket_closed", "idle"),
    "websocket.too_big": ("websocket_closed", "message_too_big"),
    "websocket.bad_frames": ("websocket_closed", "bad_frame"),
    "websocket.lost_messages": ("websocket_closed", "message_lost"),
    "http.requests": ("http_requests", None),
    "http.clients_left": ("http_clients_left", None),
    "http.body_waits": ("http_body_waits", None),
    "link.full": ("publish_failures", "channel_full"),
    "link.unavailable": ("publish_failures", "no_broker"),
    "link.refused": ("publish_failures", "too_many_waiting"),
    "link.errors": ("publish_failures", "error"),
    "link.unforgotten": ("publish_failures", "membership_given_up"),
    "replies.unknown": ("replies_dropped", "client_left"),
    "replies.lost": ("replies_dropped", "too_many_waiting"),
    "replies.errors": ("replies_dropped", "error"),
    "replies.foreign": ("replies_dropped", "foreign"),
    "link.unsigned": ("replies_dropped", "unsigned"),
}

#: A metric's values by those of its labels.
Values = dict[tuple[str, ...], float]


class Collector:
    """All metrics of one server, as Prometheus' library wants them.

    Args:
        context: what all connections share.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """What is known in this process now."""
        counted = _counters(self._context)
        gauges = _gauges(self._context)
        histograms = _histograms(self._context)
        for each in METRICS:
            name, told, labels = PREFIX + each.name, each.help, each.labels
            if each.kind == "info":
                yield InfoMetricFamily(name, told, {"version": __version__})
            elif each.kind == "histogram":
                histogram = HistogramMetricFamily(name, told, labels=labels)
                for values, measured in histograms[each.name].items():
                    histogram.add_metric(values, list(measured.buckets()), measured.sum)
                yield histogram
            elif each.kind == "counter":
                counter = CounterMetricFamily(name, told, labels=labels)
                # One without labels begins with 0: it is there before what it counts.
                for values, number in (counted.pop(each.name, {}) or ({} if labels else {(): 0.0})).items():
                    counter.add_metric(values, number)
                yield counter
            elif each.name in gauges:
                yield GaugeMetricFamily(name, told, value=gauges[each.name])
        for unlisted, numbers in sorted(counted.items()):
            yield CounterMetricFamily(PREFIX + unlisted, f"The counter {unlisted}.", value=numbers[()])


def _counters(context: ServerContext) -> dict[str, Values]:
    stats = context.stats
    result: dict[str, Values] = defaultdict(dict)
    for counter, number in stats.as_dict().items():
        name, value = COUNTED.get(counter, (counter.replace(".", "_"), None))
        result[name][() if value is None else (value,)] = number
    for name, total in (
        ("websocket_messages_received", stats.received),
        ("websocket_messages_sent", stats.sent),
        ("websocket_received_bytes", stats.received_bytes),
        ("websocket_sent_bytes", stats.sent_bytes),
        ("http_received_bytes", stats.http_received_bytes),
        ("http_sent_bytes", stats.http_sent_bytes),
    ):
        result[name][()] = total
    for (protocol, status, reason), number in stats.refused.items():
        result["refused"][protocol, str(status), reason] = number
    for reason, number in stats.cut_off.items():
        result["http_cut_off"][(reason,)] = number
    if context.measures is not None:
        for status, number in context.measures.responses.items():
            result["http_responses"][(str(status),)] = number
    return result


def _gauges(context: ServerContext) -> dict[str, float]:
    return {
        "connections": context.connections,
        "websockets": len(context.sockets),
        "http_waiting": len(context.single_responses),
        "http_streaming": context.streaming,
        "broker_reachable": int(context.link.reachable),
    }


def _histograms(context: ServerContext) -> dict[str, dict[tuple[str, ...], Histogram]]:
    measures = context.measures
    if measures is None:
        return defaultdict(dict)
    return {
        "publish_seconds": {(channel,): each for channel, each in measures.publish.items()},
        "consumer_seconds": {(channel,): each for channel, each in measures.consumer.items()},
        "reply_seconds": {(channel,): each for channel, each in measures.reply.items()},
        "http_request_seconds": {(): measures.requests},
    }


def processes_gauge(number: int) -> Metric:
    """The metric of how many processes have told what they know."""
    told = _BY_NAME["processes"]
    return GaugeMetricFamily(PREFIX + told.name, told.help, value=number)


def depth_gauge(depths: Mapping[str, int]) -> Iterable[Metric]:
    """The metric of what waits in channels; none if nothing is known."""
    told = _BY_NAME["queue_messages"]
    if depths:
        gauge = GaugeMetricFamily(PREFIX + told.name, told.help, labels=told.labels)
        for channel, depth in depths.items():
            gauge.add_metric((channel,), depth)
        yield gauge


def streaming_gauges(streams: Mapping[str, Streaming]) -> Iterable[Metric]:
    """The metrics of what workers stream; none if nothing is known."""
    if not streams:
        return
    for name, values in (
        ("worker_streaming", {worker: each.running for worker, each in streams.items()}),
        ("worker_streaming_limit", {worker: each.limit for worker, each in streams.items()}),
    ):
        told = _BY_NAME[name]
        gauge = GaugeMetricFamily(PREFIX + told.name, told.help, labels=told.labels)
        for worker, value in values.items():
            if value is not None:
                gauge.add_metric((worker,), value)
        yield gauge


def registry_of(context: ServerContext) -> CollectorRegistry:
    """All that one process can tell by itself: a server's metrics, and the ``process_…`` ones of the system."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(context))
    ProcessCollector(registry=registry)
    return registry
