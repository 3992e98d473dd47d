"""Timeouts after which a broker counts as lost, for layers and for the workers that consume them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery

from channelsq import conf
from channelsq.layers.kombu_broker.amqp_internals import bound, bound_publisher

#: URL schemes of AMQP brokers.
AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})

#: URL schemes of Kombu's own Redis transport.
STOCK_REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "sentinel"})

#: Seconds between heartbeats that an AMQP broker and its clients agree on: each side takes the other for dead after
#: two to three of them.  Celery's default of 120 means six minutes.
HEARTBEAT = 10

#: Seconds for which Redis may leave a command unanswered, and that connecting may take.
SOCKET_TIMEOUT, CONNECT_TIMEOUT = 15, 5

#: Seconds for which a restore of abandoned messages on Kombu's Redis transport excludes others; Kombu's default is 300,
#: also if the process dies.  Concurrent restores do no harm: each message is restored in its own transaction.
MUTEX_EXPIRE = 5


def is_amqp(url: str) -> bool:
    """Return whether a broker's protocol is AMQP, by its URL."""
    return url.partition("://")[0] in AMQP_SCHEMES


def options_for(url: str) -> dict[str, Any]:
    """Return the default transport options for a broker; the project's options override them."""
    if is_amqp(url):
        return {"on_open": bound}
    if url.partition("://")[0] in STOCK_REDIS_SCHEMES:
        return {
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "unacked_mutex_expire": MUTEX_EXPIRE,
        }
    return {}  # the transport on streams has its own


def layer_options(url: str, chosen: Mapping[str, Any], *, listens: bool) -> dict[str, Any]:
    """Return the transport's options for a connection of a layer.

    Args:
        url: the broker's URL.
        chosen: the project's options, and in a worker those that it added.
        listens: whether the connection waits for messages; otherwise it sends requests and waits for answers.
    """
    options = {
        # A publisher that cannot reach the broker reports that soon, instead of trying for ever.
        "max_retries": 2,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.3,
        **options_for(url),
        **chosen,
    }
    if is_amqp(url):
        options.setdefault("confirm_publish", True)
        if options["on_open"] is bound and not listens:
            options["on_open"] = bound_publisher
    elif url.partition("://")[0] == "memory":
        options.setdefault("polling_interval", 0.01)
    return options


def heartbeat(app: Celery) -> float:
    """Return the seconds between AMQP heartbeats: ``broker_heartbeat`` if it is set; 0 for none."""
    return float(app.conf.broker_heartbeat or 0) if conf.is_chosen(app, "broker_heartbeat") else HEARTBEAT
