"""The metrics of ``/-/metrics``: their names, and their values from counters and measurements.

``docs/reference/metrics.md`` describes them for readers.  No label's value comes from a client.
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
class Spec:
    """One metric.

    Args:
        name: without :data:`PREFIX`, and without the suffix that Prometheus adds to the names of counters.
        kind: ``"counter"``, ``"gauge"``, ``"histogram"`` or ``"info"``.
        help: the text of its HELP line.
        labels: the names of its labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its full name, as in queries."""
        return PREFIX + self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


METRICS = (
    Spec("interface", "info", "The interface server's version.", ("version",)),
    Spec("connections", "gauge", "Connected clients, of every protocol."),
    Spec("websockets", "gauge", "WebSockets whose disconnect is not published yet."),
    Spec("http_waiting", "gauge", "HTTP requests that wait for a single response."),
    Spec("http_streaming", "gauge", "HTTP responses that have begun and are not complete."),
    Spec("broker_reachable", "gauge", "1 if the broker was reachable last, else 0."),
    Spec("processes", "gauge", "Interface processes of one --workers whose metrics are included."),
    Spec("queue_messages", "gauge", "Messages in a channel that no worker has taken yet.", ("channel",)),
    Spec("worker_streaming", "gauge", "Streaming responses that a worker runs; each holds a thread.", ("worker",)),
    Spec("worker_streaming_limit", "gauge", "Streaming responses that all its processes may run.", ("worker",)),
    Spec("websocket_handshakes", "counter", "WebSocket handshakes that were sent to the application."),
    Spec("websocket_accepted", "counter", "WebSockets that were accepted."),
    Spec("websocket_ended", "counter", "WebSockets, and handshakes sent to the application, that ended."),
    Spec("websocket_closed", "counter", "WebSockets that this server closed because of their client.", ("reason",)),
    Spec("websocket_messages_received", "counter", "Messages from WebSocket clients."),
    Spec("websocket_messages_sent", "counter", "Messages written to WebSocket clients."),
    Spec("websocket_received_bytes", "counter", "Bytes read from WebSockets: handshakes and frames."),
    Spec("websocket_sent_bytes", "counter", "Bytes written to WebSockets: handshakes and frames."),
    Spec("websocket_paused", "counter", "Pauses in reading a WebSocket, as its messages wait."),
    Spec("websocket_throttled", "counter", "Pauses in reading a WebSocket, as it sends too fast."),
    Spec("websocket_overdue", "counter", "Messages of WebSockets that no worker finished in time."),
    Spec("websocket_dropped", "counter", "Droppable messages that a WebSocket whose client reads slowly did not get."),
    Spec("websocket_bad_replies", "counter", "Messages from the application that a WebSocket cannot carry out."),
    Spec("http_requests", "counter", "HTTP requests, except those to the server's own pages."),
    Spec("http_responses", "counter", "Responses to them, including those of this server itself.", ("status",)),
    Spec("http_cut_off", "counter", "Responses that had begun and were not completed.", ("reason",)),
    Spec("http_clients_left", "counter", "HTTP clients that left before their response was complete."),
    Spec("http_received_bytes", "counter", "Bytes read from HTTP connections."),
    Spec("http_sent_bytes", "counter", "Bytes of response bodies."),
    Spec("http_body_waits", "counter", "Waits of a part of a body for room in its channel."),
    Spec(
        "refused", "counter", "Requests and handshakes that this server answered itself.",
        ("protocol", "status", "reason"),
    ),
    Spec("publish_failures", "counter", "Attempts to publish, or to end memberships, that failed.", ("reason",)),
    Spec("replies_dropped", "counter", "Replies of the application that reached no client.", ("reason",)),
    Spec("publish_seconds", "histogram", "Seconds from a message's dispatch until the broker has it.", ("channel",)),
    Spec("reply_seconds", "histogram", "Seconds from a message's dispatch until its consumer answers.", ("channel",)),
    Spec("consumer_seconds", "histogram", "Seconds of that in the consumer, by its worker's clock.", ("channel",)),
    Spec("http_request_seconds", "histogram", "Seconds from a request's head to the end of its response."),
)  # fmt: skip

_BY_NAME = {each.name: each for each in METRICS}

#: The counters of :class:`channelsq.interface.basis.counters.Counters`: the metric, and the value of its label if it
#: has one.
COUNTED: Mapping[str, tuple[str, str | None]] = {
    "websocket.begun": ("websocket_handshakes", None),
    "websocket.accepted": ("websocket_accepted", None),
    "websocket.ended": ("websocket_ended", None),
    "websocket.paused": ("websocket_paused", None),
    "websocket.throttled": ("websocket_throttled", None),
    "websocket.overdue": ("websocket_overdue", None),
    "websocket.dropped": ("websocket_dropped", None),
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
    "link.undecrypted": ("replies_dropped", "undecrypted"),
}

#: A metric's values, by the values of its labels.
Values = dict[tuple[str, ...], float]


class Collector:
    """All metrics of one server, in the form of Prometheus' library.

    Args:
        context: the state that all connections share.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics of this process."""
        counted = _counters(self._context)
        gauges = _gauges(self._context)
        histograms = _histograms(self._context)
        for each in METRICS:
            name, help_text, labels = PREFIX + each.name, each.help, each.labels
            if each.kind == "info":
                yield InfoMetricFamily(name, help_text, {"version": __version__})
            elif each.kind == "histogram":
                histogram = HistogramMetricFamily(name, help_text, labels=labels)
                for values, measured in histograms[each.name].items():
                    histogram.add_metric(values, list(measured.buckets()), measured.sum)
                yield histogram
            elif each.kind == "counter":
                counter = CounterMetricFamily(name, help_text, labels=labels)
                # A metric without labels begins with 0, so that it exists before its first event.
                for values, number in (counted.pop(each.name, {}) or ({} if labels else {(): 0.0})).items():
                    counter.add_metric(values, number)
                yield counter
            elif each.name in gauges:
                yield GaugeMetricFamily(name, help_text, value=gauges[each.name])
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
    """Return the metric of the number of processes whose metrics are included."""
    metric = _BY_NAME["processes"]
    return GaugeMetricFamily(PREFIX + metric.name, metric.help, value=number)


def depth_gauge(depths: Mapping[str, int]) -> Iterable[Metric]:
    """Yield the metric of the messages that wait in channels, if any depth is known."""
    metric = _BY_NAME["queue_messages"]
    if depths:
        gauge = GaugeMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
        for channel, depth in depths.items():
            gauge.add_metric((channel,), depth)
        yield gauge


def streaming_gauges(streams: Mapping[str, Streaming]) -> Iterable[Metric]:
    """Yield the metrics of workers' streaming responses, if any are known."""
    if not streams:
        return
    for name, values in (
        ("worker_streaming", {worker: each.running for worker, each in streams.items()}),
        ("worker_streaming_limit", {worker: each.limit for worker, each in streams.items()}),
    ):
        metric = _BY_NAME[name]
        gauge = GaugeMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
        for worker, value in values.items():
            if value is not None:
                gauge.add_metric((worker,), value)
        yield gauge


def registry_of(context: ServerContext) -> CollectorRegistry:
    """Return the metrics that one process knows by itself: the server's, and the system's ``process_…`` metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(context))
    ProcessCollector(registry=registry)
    return registry
