"""The running processes of a site whose layer is on several servers.

Each server has records of its own.  A process is dead if no server that answers has a heartbeat of it: one that is cut
off from one server has live sockets, whose messages take other servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from channelsq.core.wire_version import Announced
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups.group_stores import RedisGroups
from channelsq.layers.groups.presence import Presence
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.shards.sharded_groups import Servers

T = TypeVar("T")


def groups_of(shard: KombuBroker) -> RedisGroups:
    """Return the groups on the server of a layer."""
    groups = shard.group_store
    assert isinstance(groups, RedisGroups)
    return groups


class ShardPresence(Presence):
    """The records on one server.

    Args:
        layer: the layer of all servers.
        place: the server's place.
    """

    def __init__(self, layer: Servers, place: int) -> None:
        super().__init__(groups_of(layer.shards[place]))
        self._layer = layer
        self._place = place

    def dead(self) -> list[str]:
        """Return the processes without a heartbeat on this server and on every other one that answers."""
        silent = super().dead()
        for place in range(len(self._layer.shards)):
            if silent and place != self._place:
                try:
                    alive = self._layer.on(place, lambda shard: Presence(groups_of(shard)).alive(silent))  # noqa: B023
                except BrokerUnavailable:
                    continue
                silent = [process for process in silent if process not in alive]
        return silent


class ShardedPresence(Presence):
    """The records on all servers, for workers and for operators.

    Args:
        layer: the layer of all servers.
    """

    def __init__(self, layer: Servers) -> None:
        super().__init__(groups_of(layer.shards[0]))
        self._layer = layer

    def _some(self, call: Callable[[Presence], T]) -> list[T]:
        return self._layer.some(lambda shard: call(Presence(groups_of(shard))))

    def beat_worker(self, name: str, lifetime: float, more: Mapping[str, Any] | None = None) -> None:
        self._some(lambda presence: presence.beat_worker(name, lifetime, more))

    def leave_worker(self, name: str) -> None:
        self._some(lambda presence: presence.leave_worker(name))

    def announced(self) -> list[Announced]:
        found = {(each.kind, each.name): each for part in self._some(Presence.announced) for each in part}
        return [found[key] for key in sorted(found)]

    def socket_counts(self, processes: Sequence[str]) -> list[int]:
        parts = self._some(lambda presence: presence.socket_counts(processes))
        return [sum(counts) for counts in zip(*parts, strict=True)]

    def paths(self, channels: Sequence[str]) -> list[str | None]:
        parts = self._some(lambda presence: presence.paths(channels))
        return [next((path for path in paths if path is not None), None) for paths in zip(*parts, strict=True)]

    def some_sockets(self, process: str, count: int) -> dict[str, str]:
        parts = self._some(lambda presence: presence.some_sockets(process, count))
        return {channel: path for part in parts for channel, path in part.items()}
