"""The groups of a layer of several servers: each group on the server of its name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import monotonic
from typing import Protocol, TypeVar

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups.group_stores import GroupSizes, GroupStore
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.shards.placement import Placement

T = TypeVar("T")

_REMEDY = (
    "start it again, or remove it from CONFIG['hosts'], and its groups move to the other servers "
    "(docs/explanation/layers.md)"
)


class Servers(Protocol):
    """The layer of several servers, as its groups and its records of processes use it."""

    @property
    def shards(self) -> tuple[KombuBroker, ...]:
        """The layer of each server."""

    @property
    def placement(self) -> Placement:
        """The servers of names."""

    @property
    def group_expiry(self) -> float:
        """Seconds that a membership lives."""

    def on(self, place: int, call: Callable[[KombuBroker], T]) -> T:
        """Return the result of a call of the layer at ``place``."""

    def each(self, call: Callable[[KombuBroker], T]) -> list[T]:
        """Return the results of a call of every layer."""

    def some(self, call: Callable[[KombuBroker], T]) -> list[T]:
        """Return the results of the servers that answer."""


def names_group(error: BrokerUnavailable, group: str) -> BrokerUnavailable:
    """Return the error of a server with the name of the group that was to be used."""
    return BrokerUnavailable(error.url, error.reason, _REMEDY, group)


class ShardedGroups(GroupStore):
    """See :class:`GroupStore`.  A group whose server is away cannot be changed, read or sent to.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Servers) -> None:
        super().__init__(layer.group_expiry)
        self._layer = layer

    def _of(self, group: str, call: Callable[[KombuBroker], T]) -> T:
        try:
            return self._layer.on(self._layer.placement.first(group), call)
        except BrokerUnavailable as error:
            raise names_group(error, group) from error

    def add(self, group: str, channel: str) -> None:
        self._of(group, lambda shard: shard.group_add(group, channel))

    def discard(self, group: str, channel: str) -> None:
        self._of(group, lambda shard: shard.group_discard(group, channel))

    def members(self, group: str) -> list[str]:
        return self._of(group, lambda shard: shard.group_channels(group))

    def some_members(self, group: str, most: int) -> tuple[list[str], int]:
        return self._of(group, lambda shard: shard.some_members(group, most))

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        until = monotonic() + seconds
        parts = self._layer.some(lambda shard: shard.group_sizes(most, max(0.0, until - monotonic())))
        found = {group: size for part in parts for group, size in part.sizes.items()}
        return GroupSizes(
            dict(itertools.islice(found.items(), most)), len(found) > most or any(part.cut for part in parts)
        )

    def forget(self, channel: str) -> None:
        self._layer.each(lambda shard: shard.forget_channel(channel))

    def flush(self) -> None:
        """Do nothing: the layers of the servers flush their own."""

    def close(self) -> None:
        """Do nothing: the layers of the servers close their own."""
