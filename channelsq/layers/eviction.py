"""A warning about a Redis that evicts keys when its memory is full: messages or groups would be lost."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import redis
from kombu.exceptions import KombuError

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.redis_servers import redis_servers

logger = logging.getLogger("channelsq.layers")

#: Prefixes of the policies' names, and the keys that each policy evicts.
DROPPED = {
    "allkeys": "any key: queues with all messages in them, answers, groups, and the leases of workers",
    "volatile": "keys that expire: answers on their way, groups, and the leases of workers",
}


def warn_of_eviction(layer: KombuBroker) -> None:
    """Log a warning for each Redis of a layer whose ``maxmemory-policy`` is not ``noeviction``.

    Providers may forbid CONFIG, so INFO is used.  A server without that information is skipped.
    """
    for url, info in _servers(layer):
        policy = str(info.get("maxmemory_policy", "noeviction"))
        dropped = DROPPED.get(policy.partition("-")[0])
        if dropped:
            logger.warning(
                "%s: its maxmemory-policy is %s.  When it is full it drops %s.  Then messages are lost or run twice; "
                "set maxmemory-policy to noeviction",
                url, policy, dropped,
                extra={"action": "redis_evicts"},
            )  # fmt: skip


def _servers(layer: KombuBroker) -> list[tuple[str, dict[str, Any]]]:
    """Return the URL of each Redis of a layer, and the memory section of its INFO."""
    found: list[tuple[str, dict[str, Any]]] = []
    # A server that forbids INFO also answers with an error.
    with contextlib.suppress(InvalidChannelLayerError):
        for server in redis_servers(layer):
            with contextlib.suppress(redis.RedisError, KombuError, OSError), server.connected() as client:
                found.append((server.shown, dict(client.info("memory"))))
    return found
