"""How long channelsq waits for a broker before it counts as away: by layers and by the workers that consume them."""

from __future__ import annotations

from typing import Any

from celery import Celery

from channelsq import conf
from channelsq.layers.amqp_internals import bound

#: URL schemes of AMQP brokers.
AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})

#: Those of Kombu's own Redis transport.
STOCK_REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "sentinel"})

#: Seconds between heartbeats that an AMQP broker and its clients agree on: either side takes the other for dead after
#: two to three of them.  Celery's own 120 are six minutes.
HEARTBEAT = 10

#: Seconds for which Redis may leave a command unanswered, and that connecting may take.
SOCKET_TIMEOUT, CONNECT_TIMEOUT = 15, 5

#: Seconds for which a sweep for abandoned messages on Kombu's Redis transport keeps others out, who would be kept out
#: for 300 if it dies.  Sweeps at once do no harm: each message is put back in a transaction of its own.
MUTEX_EXPIRE = 5


def is_amqp(url: str) -> bool:
    """Whether a broker speaks AMQP, by its URL."""
    return url.partition("://")[0] in AMQP_SCHEMES


def options_for(url: str) -> dict[str, Any]:
    """Return the transport's options for a broker, which those that the project sets go above."""
    if is_amqp(url):
        return {"on_open": bound}
    if url.partition("://")[0] in STOCK_REDIS_SCHEMES:
        return {
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "unacked_mutex_expire": MUTEX_EXPIRE,
        }
    return {}  # the transport on streams has such of its own


def heartbeat(app: Celery) -> float:
    """Return the seconds between AMQP heartbeats: ``broker_heartbeat`` if it was chosen, 0 for none."""
    return float(app.conf.broker_heartbeat or 0) if conf.is_chosen(app, "broker_heartbeat") else HEARTBEAT
