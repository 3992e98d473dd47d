"""The stores of groups and their members.

A layer owns one :class:`GroupStore`: :class:`MemoryGroups` for layers within one process, :class:`RedisGroups` for
all others.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import redis
from kombu.utils.url import maybe_sanitize_url

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.wire.shared_clock import Clock
from channelsq.layers.wire.wire_forms import Names, PackedNames
from channelsq.redis_core.commands import Command
from channelsq.redis_core.groups import GroupCommands
from channelsq.redis_core.operations import Operation
from channelsq.redis_core.server_clock import server_time
from channelsq.redis_io.blocking import carry_out_again
from channelsq.redis_io.pool_params import url_params
from channelsq.redis_io.waiting_pool import WaitingPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: The number of memberships that are written together.
_ADDED_TOGETHER = 500

#: Seconds: the timeouts of a half-open connection.
_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}

#: The most connections of a process, unless the URL says otherwise, and the seconds for which a thread waits for one.
_MOST_CONNECTIONS, _PATIENCE = 100, 10.0

T = TypeVar("T")


def owner_of(channel: str) -> str | None:
    """Return the process that has the channel's client, or None."""
    return names.process_part(channel)[:-1].rpartition(".")[2] if names.is_process_channel(channel) else None


class GroupSizes(NamedTuple):
    """Groups of a layer and the numbers of their members."""

    sizes: dict[str, int]
    #: Whether there may be more groups.
    cut: bool


class GroupStore(ABC):
    """Memberships of channels in groups, each ending ``expiry`` seconds after its last ``add``.

    Names are checked by the caller.  Safe to call from any thread.
    """

    def __init__(self, expiry: float) -> None:
        self.expiry = expiry

    @abstractmethod
    def add(self, group: str, channel: str) -> None:
        """Make ``channel`` a member of ``group`` or renew its membership."""

    @abstractmethod
    def discard(self, group: str, channel: str) -> None:
        """End a membership, if there is one."""

    @abstractmethod
    def members(self, group: str) -> list[str]:
        """Return the channels in ``group``."""

    def addresses(self, group: str) -> tuple[list[tuple[str, Names]], list[str]]:
        """Return the members of ``group`` by process, as ``("name.<process>!", channels)``, and the others."""
        by_process: dict[str, list[str]] = {}
        others = []
        for channel in self.members(group):
            if names.is_process_channel(channel):
                by_process.setdefault(names.process_part(channel), []).append(channel)
            else:
                others.append(channel)
        return list(by_process.items()), others

    @abstractmethod
    def sizes(self, most: int, seconds: float) -> GroupSizes:
        """See :meth:`BaseChannelLayer.group_sizes`."""

    def some_members(self, group: str, most: int) -> tuple[list[str], int]:
        """See :meth:`BaseChannelLayer.some_members`."""
        members = self.members(group)
        return members[:most], len(members)

    @abstractmethod
    def forget(self, channel: str) -> None:
        """End every membership of ``channel``."""

    @abstractmethod
    def flush(self) -> None:
        """Delete every group."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""


class MemoryGroups(GroupStore):
    """Groups of one process."""

    def __init__(self, expiry: float) -> None:
        super().__init__(expiry)
        self._lock = threading.Lock()
        self._groups: dict[str, dict[str, float]] = {}
        self._channels: dict[str, set[str]] = {}

    def add(self, group: str, channel: str) -> None:
        with self._lock:
            self._groups.setdefault(group, {})[channel] = time.monotonic() + self.expiry
            self._channels.setdefault(channel, set()).add(group)

    def discard(self, group: str, channel: str) -> None:
        with self._lock:
            self._remove(group, channel)

    def _remove(self, group: str, channel: str) -> None:
        members = self._groups.get(group, {})
        members.pop(channel, None)
        if not members:
            self._groups.pop(group, None)
        groups = self._channels.get(channel, set())
        groups.discard(group)
        if not groups:
            self._channels.pop(channel, None)

    def members(self, group: str) -> list[str]:
        now = time.monotonic()
        with self._lock:
            members = self._groups.get(group, {})
            expired = [channel for channel, deadline in members.items() if deadline <= now]
            for channel in expired:
                self._remove(group, channel)
            return list(members)

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        with self._lock:
            some = {name: len(self._groups[name]) for name in itertools.islice(self._groups, most)}
            return GroupSizes(some, len(self._groups) > most)

    def forget(self, channel: str) -> None:
        with self._lock:
            for group in list(self._channels.get(channel, ())):
                self._remove(group, channel)

    def flush(self) -> None:
        with self._lock:
            self._groups.clear()
            self._channels.clear()

    def close(self) -> None:
        """Do nothing: there are no connections."""


class RedisGroups(GroupStore):
    """Groups as Redis sets.

    See :mod:`channelsq.redis_core.groups`.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it; or ``sentinel://``.
        prefix: the prefix of every key.
        expiry: seconds that a membership lives after the last ``add``.
        params: how to connect to that Redis, as keyword arguments of redis-py's ConnectionPool, if ``url`` does not
            contain all of it.
    """

    def __init__(self, url: str, prefix: str, expiry: float, params: dict[str, Any] | None = None) -> None:
        super().__init__(expiry)
        self.url = url
        self.prefix = prefix
        if params is None:
            # The URL's own query takes precedence.
            chosen = {**_TIMEOUTS, **url_params(url)}
        else:
            # redis-py decides about missing values; "max_connections" is meant for the pool of Kombu's transport.
            chosen = {
                **_TIMEOUTS,
                **{name: value for name, value in params.items() if value is not None and name != "max_connections"},
            }
        most = int(chosen.pop("max_connections", _MOST_CONNECTIONS))
        pool: Any = WaitingPool(most=most, patience=_PATIENCE, **chosen, decode_responses=True)
        self.client = redis.Redis(connection_pool=pool)
        self._shown = ";".join(str(maybe_sanitize_url(each)) for each in url.split(";"))
        #: The operations on the groups.
        self.commands = GroupCommands(prefix)
        #: The clock of this server, by which memberships end.
        self.clock = Clock(lambda: self.carry_out(server_time), self._shown)

    def carry_out(self, make: Callable[[], Operation[T]]) -> T:
        """Return the result of the operation that ``make`` returns; it may be carried out twice.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses.
        """
        pool = self.client.connection_pool
        try:
            return carry_out_again(pool, make)
        except (redis.RedisError, OSError) as error:  # also from a server that is out of memory or read-only
            if not isinstance(error, redis.ResponseError):
                pool.disconnect(inuse_connections=False)  # these connections are probably lost, too
            raise BrokerUnavailable(self._shown, error) from error

    def add(self, group: str, channel: str, more: Iterable[Command] = ()) -> None:
        """See :meth:`GroupStore.add`; ``more`` commands are carried out in the same transaction."""
        owner, end = owner_of(channel), self.clock.now() + self.expiry
        if not self.carry_out(lambda: self.commands.add(group, channel, end, self.expiry, owner, more)):
            self.forget(channel)  # its process is gone, and another process may have cleaned up for it already

    def add_all(self, memberships: Iterable[tuple[str, str, float]]) -> None:
        """Add several memberships, each a group, a channel, and the seconds until it ends."""
        rest = iter(memberships)
        while some := list(itertools.islice(rest, _ADDED_TOGETHER)):
            now = self.clock.now()
            ends = [(group, channel, now + seconds) for group, channel, seconds in some]
            self.carry_out(functools.partial(self.commands.add_some, ends, self.expiry))

    def discard(self, group: str, channel: str, more: Iterable[Command] = ()) -> None:
        """See :meth:`GroupStore.discard`; ``more`` as in :meth:`add`."""
        self.carry_out(lambda: self.commands.discard(group, channel, more))

    def members(self, group: str) -> list[str]:
        now = self.clock.now()
        return self.carry_out(lambda: self.commands.members(group, now))

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        """See :meth:`BaseChannelLayer.group_sizes`; expired memberships may be counted."""
        until = time.monotonic() + seconds
        found: dict[str, int] = {}
        cursor, ended = b"0", False
        while not ended and len(found) <= most and time.monotonic() < until:
            cursor, some = self.carry_out(functools.partial(self.commands.scan, cursor))
            found.update(some)
            ended = int(cursor) == 0
        return GroupSizes(dict(itertools.islice(found.items(), most)), not ended or len(found) > most)

    def some_members(self, group: str, most: int) -> tuple[list[str], int]:
        """See :meth:`BaseChannelLayer.some_members`; large groups are scanned; expired memberships may be returned."""
        return self.carry_out(lambda: self.commands.some_members(group, most))

    def addresses(self, group: str) -> tuple[list[tuple[str, Names]], list[str]]:
        now = self.clock.now()
        by_process, others = self.carry_out(lambda: self.commands.addresses(group, now))
        return [(prefix, PackedNames(packed)) for prefix, packed in by_process], others

    def forget(self, channel: str) -> None:
        self.carry_out(lambda: self.commands.forget(channel))

    def forget_all(self, channels: Sequence[str]) -> None:
        """End every membership of several channels."""
        if channels:
            self.carry_out(lambda: self.commands.forget(*channels))

    def flush(self) -> None:
        self.carry_out(self.commands.flush)

    def close(self) -> None:
        self.client.close()
        self.client.connection_pool.disconnect()
