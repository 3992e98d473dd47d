"""A listener on several servers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import Deliver, Listener


class ShardedListener:
    """Listens to one prefix on every server, see :meth:`BaseChannelLayer.listen`.

    Args:
        shards: the layer of each server.
        prefix: ``"name.<process>!"``.
        deliver: called for each message, never concurrently.
    """

    def __init__(self, shards: Iterable[BaseChannelLayer], prefix: str, deliver: Deliver) -> None:
        self._deliver = deliver
        self._lock = threading.Lock()
        self._listeners: list[Listener] = [shard.listen(prefix, self._one_at_a_time) for shard in shards]

    def _one_at_a_time(self, channels: Sequence[str], message: dict[str, Any], group: str | None) -> None:
        with self._lock:
            self._deliver(channels, message, group)

    @property
    def connected(self) -> bool:
        """True if the listener is connected to a server, as far as is known."""
        return any(listener.connected for listener in self._listeners)

    def stop(self) -> None:
        """Stop delivering; returns when no delivery is running."""
        stopping = [threading.Thread(target=listener.stop, daemon=True) for listener in self._listeners]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
