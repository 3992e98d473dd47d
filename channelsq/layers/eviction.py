"""A word of warning about a Redis that makes room by dropping keys: whatever it drops, somebody relied on it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import redis

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups import RedisGroups
from channelsq.layers.params import redis_params
from channelsq.layers.urls import shown

if TYPE_CHECKING:
    from channelsq.layers.kombu import KombuChannelLayer

logger = logging.getLogger("channelsq.layers")

#: Beginnings of the policies' names, and the keys that each drops.
_DROPPED = {
    "allkeys": "any key: queues with all messages in them, answers, groups, and the leases of workers",
    "volatile": "keys that expire: answers on their way, groups, and the leases of workers",
}


def warn_of_eviction(layer: KombuChannelLayer) -> None:
    """Log a warning for each Redis of a layer whose ``maxmemory-policy`` is not ``noeviction``.

    Providers may forbid CONFIG; INFO tells it, too.  A server that does not is passed over.
    """
    for url, info in _servers(layer):
        policy = str(info.get("maxmemory_policy", "noeviction"))
        dropped = _DROPPED.get(policy.partition("-")[0])
        if dropped:
            logger.warning(
                "%s: its maxmemory-policy is %s.  When it is full it drops %s.  Then messages are lost or run twice; "
                "set maxmemory-policy to noeviction",
                shown(url), policy, dropped,
                extra={"action": "redis_evicts"},
            )  # fmt: skip


def _servers(layer: KombuChannelLayer) -> list[tuple[str, dict[str, Any]]]:
    """The URL of each Redis of a layer, and what INFO tells of its memory."""
    found: list[tuple[str, dict[str, Any]]] = []
    groups = layer.group_store
    if isinstance(groups, RedisGroups):
        with contextlib.suppress(BrokerUnavailable):  # which it is also where INFO is forbidden
            found.append((groups.url, groups.call(lambda: groups.client.info("memory"))))
    if layer.has_other_groups and layer.scheme in layer.redis_schemes and ";" not in layer.url:
        pool = redis.ConnectionPool(**redis_params(layer))
        with contextlib.suppress(redis.RedisError, OSError), redis.Redis(connection_pool=pool) as client:
            found.append((layer.url, dict(client.info("memory"))))
        pool.disconnect()
    return found
