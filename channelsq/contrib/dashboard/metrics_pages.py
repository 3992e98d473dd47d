"""The metrics pages of interface servers, read and reduced to the numbers that the dashboard shows."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from channelsq.core.bounded import within

#: The counters that are read, with the labels that are kept; values of other labels are added up.
COUNTERS: dict[str, tuple[str, ...]] = {
    "channelsq_websocket_messages_received_total": (),
    "channelsq_websocket_messages_sent_total": (),
    "channelsq_websocket_dropped_total": (),
    "channelsq_websocket_closed_total": ("reason",),
    "channelsq_http_requests_total": (),
    "channelsq_http_cut_off_total": ("reason",),
    "channelsq_refused_total": ("protocol", "status", "reason"),
    "channelsq_publish_failures_total": ("reason",),
    "channelsq_reply_seconds_bucket": ("channel", "le"),
}

#: The gauges that are read.
GAUGES = ("channelsq_websockets", "channelsq_broker_reachable", "channelsq_processes")

#: Seconds that one page may take, and the largest page in bytes.
PATIENCE, LARGEST = 3.0, 4 * 1024 * 1024

#: The most pages that are read at the same time, and the most numbers that are taken from one.
_AT_ONCE, _MOST_NUMBERS = 10, 2000

#: Separates the values of labels in a key of :data:`Numbers`.
SEPARATOR = "|"

#: The numbers of one page, by the name of the metric and the values of its labels.
Numbers = dict[str, float]


@dataclass(frozen=True)
class MetricsPage:
    """One metrics page.

    Args:
        url: its address.
        numbers: its numbers; empty if it could not be read.
        problem: why it could not be read.
    """

    url: str
    numbers: Numbers
    problem: str = ""


def read_pages(urls: Sequence[str]) -> list[MetricsPage]:
    """Return the metrics pages at these addresses, in order."""
    if not urls:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(urls)), "channelsq-metrics") as pool:
        return list(pool.map(_read_page, urls))


def longest_wait(urls: Sequence[str]) -> float:
    """Return the most seconds that :func:`read_pages` takes."""
    return -(-len(urls) // _AT_ONCE) * (PATIENCE + 1)


def _read_page(url: str) -> MetricsPage:
    try:
        return MetricsPage(url, numbers_of(within(PATIENCE, lambda: _fetch(url))))
    except ImportError:
        return MetricsPage(url, {}, "this worker has no prometheus_client; run: pip install 'channelsq[metrics]'")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return MetricsPage(url, {}, f"the metrics page {url} cannot be read: {str(error) or type(error).__name__}")


def _fetch(url: str) -> str:
    """Return the text of a page.  Redirects are not followed, and proxies not used.

    Raises:
        OSError, http.client.HTTPException: the server does not answer, or not with HTTP.
        ValueError: it answers with another status, or with too much.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme.lower() == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path or "/", headers={"Accept": "text/plain; version=0.0.4"})
        with connection.getresponse() as response:
            if response.status != 200:
                raise ValueError(
                    f"it answers with status {response.status}; is the interface server run with --metrics?"
                )
            content = response.read(LARGEST + 1)
    finally:
        connection.close()
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024**2} MiB")
    return content.decode()


def numbers_of(text: str) -> Numbers:
    """Return the numbers of a page in Prometheus' text format.

    Raises:
        ValueError: the text is in another format.
        ImportError: prometheus_client is not installed.
    """
    from prometheus_client.parser import text_string_to_metric_families

    numbers: Numbers = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in GAUGES:
                key = sample.name
            elif sample.name in COUNTERS:
                labels = COUNTERS[sample.name]
                key = SEPARATOR.join([sample.name, *(sample.labels.get(label, "") for label in labels)])
            else:
                continue
            if key in numbers or len(numbers) < _MOST_NUMBERS:
                numbers[key] = numbers.get(key, 0.0) + sample.value
    if "channelsq_websockets" not in numbers:
        raise ValueError("it has no channelsq_websockets; name the metrics page of an interface server of channelsq")
    return numbers
