"""The connection pools of Kombu's Redis channels.

Kombu has no public hook for the parameters of a channel's connections.  Private parts of Kombu;
``tests/unit/transport/test_kombu_pool_internals.py`` pins them.
"""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import redis as kombu_redis


class PooledChannel(kombu_redis.Channel):
    """A Redis channel of Kombu's whose classes may change the parameters of its connections."""

    def pool_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of the channel's connections; subclasses extend this.

        Args:
            params: the parameters that Kombu has found.

        Raises:
            ValueError: an option is missing, has the wrong type or contradicts another.
        """
        return params

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if getattr(self.connection, "client", None) is None:
            # Kombu would raise AttributeError, which ends a worker that closes a lost connection.
            raise ConnectionError("the connection is closed")
        return self.pool_params(super()._connparams(asynchronous))  # type: ignore[misc]


class PrimaryChannel(PooledChannel):
    """A channel whose pools its parameters define alone, also on Kombu's Sentinel transport."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Return a pool; Kombu's own reads only some of the URLs, and asks the first Sentinel alone."""
        return redis.ConnectionPool(**self._connparams(asynchronous))


def connection_params(channel: Any) -> dict[str, Any]:
    """Return the parameters of a channel's connections, also of a channel that is not connected.

    Args:
        channel: a Redis channel of Kombu's or ours, with its options set.

    Raises:
        ValueError: an option is missing, has the wrong type or contradicts another.
    """
    params: dict[str, Any] = channel._connparams()
    return params


def new_pool(channel: Any) -> Any:
    """Return a pool of connections as the channel's own, for use beside it."""
    return channel._get_pool()
