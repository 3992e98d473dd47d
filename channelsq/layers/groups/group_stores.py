"""Where groups are kept: who is a member of what.

A layer owns one :class:`GroupStore`: :class:`MemoryGroups` for layers that live in one process,
:class:`RedisGroups` for all others.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import threading
import time
from abc import ABC, abstractmethod
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import redis
from kombu.utils.url import maybe_sanitize_url
from redis.client import NEVER_DECODE

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.wire.shared_clock import Clock
from channelsq.layers.wire.wire_forms import Names, PackedNames
from channelsq.transport.old_server import TOO_OLD, is_too_old

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from channelsq.transport.commands import Command

#: The script that takes a channel out of all its groups, and the name under which a server keeps it.
FORGET_SCRIPT = resources.files("channelsq.layers").joinpath("forget_member.lua").read_text(encoding="utf-8")
FORGET_SHA = hashlib.sha1(FORGET_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_ADDRESSES = resources.files("channelsq.layers").joinpath("group_addresses.lua").read_text(encoding="utf-8")
_ADDRESSES_SHA = hashlib.sha1(_ADDRESSES.encode(), usedforsecurity=False).hexdigest()

#: Names that are packed together at most, so that an envelope of one message stays within some hundred KB.
_MOST_TOGETHER = 5000

#: Members from which on a group's addresses are kept, and for how long (ms).  To put those of 4000 members together
#: takes Redis as long as some 500 of their sockets take an interface server.
_LARGE, _KEPT_MS = 100, 10_000

#: Keys, or members, that one command looks at.
_SCANNED_TOGETHER = 1000

#: Memberships that are written together.
_ADDED_TOGETHER = 500

#: Seconds: on a connection that nothing comes through any more nobody waits for ever.
_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}

#: Has redis-py give an answer as it is.
_RAW: dict[str, Any] = {NEVER_DECODE: []}


def forget_command(prefix: str, channel: str) -> tuple[str | int, ...]:
    """The Redis command that takes ``channel`` out of every group under ``prefix``.

    The server answers NOSCRIPT if it has to be given the script first (``SCRIPT LOAD``, :data:`FORGET_SCRIPT`).
    """
    return ("EVALSHA", FORGET_SHA, 1, f"{prefix}:member:{channel}", channel, prefix)


def owner_of(channel: str) -> str | None:
    """The process whose client a channel is; None if it is nobody's."""
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
        """The channels in ``group``."""

    def addresses(self, group: str) -> tuple[list[tuple[str, Names]], list[str]]:
        """The members of ``group`` by their process, as ``("name.<process>!", channels)``; and those without one."""
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
        """Forget every group."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections."""


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
        """Nothing to give back."""


class RedisGroups(GroupStore):
    """Groups as Redis sets.

    Keys, all under ``prefix``:

    ``<prefix>:group:{<group>}``           set: the channels in the group
    ``<prefix>:group:{<group>}:expiry``    sorted set: the same channels by the time their membership ends
    ``<prefix>:group:{<group>}:addresses``  string: the members of a large group as a send needs them, for a while
    ``<prefix>:member:<channel>``          set: the groups that the channel is in

    Every key expires by itself ``group_expiry`` seconds after the last ``add`` that touched it.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        prefix: put before every key.
        expiry: seconds that a membership lives after the last ``add``.
        params: how that Redis is entered, as keyword arguments of redis-py's ConnectionPool, if ``url`` does not say
            all of it.
    """

    def __init__(self, url: str, prefix: str, expiry: float, params: dict[str, Any] | None = None) -> None:
        super().__init__(expiry)
        self.url = url
        self.prefix = prefix
        if params is None:
            # The URL's own query goes above these.
            self.client = redis.Redis.from_url(url, decode_responses=True, **_TIMEOUTS)
        else:
            # What is not set is redis-py's to decide; and a worker may have as many threads as it likes.
            chosen = {
                **_TIMEOUTS,
                **{name: value for name, value in params.items() if value is not None and name != "max_connections"},
            }
            pool = redis.ConnectionPool(**chosen, decode_responses=True)
            self.client = redis.Redis(connection_pool=pool)
        #: This server's, by which memberships end.
        self.clock = Clock(lambda: self.call(self.client.time), str(maybe_sanitize_url(url)))
        self._members = self.client.register_script(
            resources.files("channelsq.layers").joinpath("group_members.lua").read_text()
        )
        self._forget = self.client.register_script(FORGET_SCRIPT)

    def _group(self, group: str) -> str:
        return f"{self.prefix}:group:{{{group}}}"

    def _channel(self, channel: str) -> str:
        return f"{self.prefix}:member:{channel}"

    def _transaction(self) -> Any:
        return self.client.pipeline(transaction=True)

    def call(self, command: Callable[[], Any]) -> Any:
        """What ``command`` gives; raises BrokerUnavailable if Redis cannot do it."""
        try:
            return command()
        except (redis.RedisError, OSError) as error:  # also one that answers, but is out of memory or read-only
            if not isinstance(error, redis.ResponseError):
                # Whatever broke the one connection may have broken these.
                self.client.connection_pool.disconnect(inuse_connections=False)
            reason = TOO_OLD if is_too_old(error) else error  # queues of streams are told of a change, too
            raise BrokerUnavailable(maybe_sanitize_url(self.url), reason) from error

    def add(self, group: str, channel: str, more: Iterable[Command] = ()) -> None:
        """See :meth:`GroupStore.add`; ``more`` commands are carried out in the same transaction."""
        owner = owner_of(channel)

        def command() -> bool:
            with self._transaction() as pipe:
                self._add(pipe, group, channel, self.expiry)
                for each in more:
                    pipe.execute_command(*each)
                if owner is not None:
                    pipe.exists(f"{self.prefix}:buried:{owner}")
                gone = pipe.execute()[-1]
            return owner is not None and bool(gone)

        if self.call(command):
            self.forget(channel)  # its process is gone, and whoever tidied up after it has been here

    def add_all(self, memberships: Iterable[tuple[str, str, float]]) -> None:
        """Add many at once, each a group, a channel, and the seconds until the membership ends."""
        rest = iter(memberships)
        while some := list(itertools.islice(rest, _ADDED_TOGETHER)):
            self.call(functools.partial(self._add_some, some))

    def _add_some(self, memberships: list[tuple[str, str, float]]) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for group, channel, seconds in memberships:
                self._add(pipe, group, channel, seconds)
            pipe.execute()

    def _add(self, pipe: Any, group: str, channel: str, seconds: float) -> None:
        key, member = self._group(group), self._channel(channel)
        pipe.unlink(f"{key}:addresses")
        pipe.sadd(key, channel)
        pipe.zadd(f"{key}:expiry", {channel: self.clock.now() + seconds})
        pipe.sadd(member, group)
        for touched in (key, f"{key}:expiry", member):
            pipe.pexpire(touched, max(1, int(self.expiry * 1000)))

    def discard(self, group: str, channel: str, more: Iterable[Command] = ()) -> None:
        """See :meth:`GroupStore.discard`; ``more`` as in :meth:`add`."""
        key = self._group(group)

        def command() -> None:
            with self._transaction() as pipe:
                pipe.srem(key, channel)
                pipe.zrem(f"{key}:expiry", channel)
                pipe.srem(self._channel(channel), group)
                for each in more:
                    pipe.execute_command(*each)
                pipe.execute()

        self.call(command)

    def members(self, group: str) -> list[str]:
        key = self._group(group)
        return cast(
            "list[str]",
            self.call(lambda: self._members(keys=[key, f"{key}:expiry"], args=[self.clock.now()])),
        )

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        """See :meth:`BaseChannelLayer.group_sizes`; memberships that have expired may be counted."""
        until = time.monotonic() + seconds
        start = self._group("")[:-1]
        found: dict[str, int] = {}
        cursor: int | None = None
        while cursor != 0 and len(found) <= most and time.monotonic() < until:
            cursor, keys = self.call(functools.partial(self._scan, cursor or 0, f"{start}*}}"))
            with self.client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.scard(key)
                sizes = self.call(pipe.execute)
            found.update(zip([key[len(start) : -1] for key in keys], sizes, strict=True))
        cut = cursor != 0 or len(found) > most
        return GroupSizes(dict(itertools.islice(found.items(), most)), cut)

    def _scan(self, cursor: int, pattern: str) -> Any:
        return self.client.scan(cursor, match=pattern, count=_SCANNED_TOGETHER)

    def some_members(self, group: str, most: int) -> tuple[list[str], int]:
        """See :meth:`BaseChannelLayer.some_members`; a group may have 100,000s, and memberships that have expired."""
        key = self._group(group)

        def command() -> tuple[list[str], int]:
            some = list(itertools.islice(self.client.sscan_iter(key, count=min(most, _SCANNED_TOGETHER)), most))
            return some, int(self.client.scard(key))

        found: tuple[list[str], int] = self.call(command)
        return found

    def addresses(self, group: str) -> tuple[list[tuple[str, Names]], list[str]]:
        key = self._group(group)
        keys = key, f"{key}:expiry", f"{key}:addresses"
        arguments = (len(keys), *keys, self.clock.now(), _MOST_TOGETHER, _KEPT_MS, _LARGE)

        client: Any = self.client

        def command() -> Any:
            try:
                return client.execute_command("EVALSHA", _ADDRESSES_SHA, *arguments, **_RAW)
            except redis.exceptions.NoScriptError:
                return client.execute_command("EVAL", _ADDRESSES, *arguments, **_RAW)

        others, *found = self.call(command)
        addresses: list[tuple[str, Names]] = [
            (prefix.decode(), PackedNames(packed)) for prefix, packed in zip(found[::2], found[1::2], strict=True)
        ]
        return addresses, [channel.decode() for channel in others]

    def forget(self, channel: str) -> None:
        self.call(lambda: self._forget(keys=[self._channel(channel)], args=[channel, self.prefix]))

    def forget_all(self, channels: Sequence[str]) -> None:
        """:meth:`forget` for many at once."""

        def command() -> None:
            with self.client.pipeline(transaction=False) as pipe:
                for channel in channels:
                    self._forget(keys=[self._channel(channel)], args=[channel, self.prefix], client=pipe)
                pipe.execute()

        if channels:
            self.call(command)

    def flush(self) -> None:
        def command() -> None:
            for kind in ("group", "member", "buried"):
                batch = []
                for key in self.client.scan_iter(match=f"{self.prefix}:{kind}:*", count=1000):
                    batch.append(key)
                    if len(batch) >= 1000:
                        self.client.unlink(*batch)
                        batch.clear()
                if batch:
                    self.client.unlink(*batch)

        self.call(command)

    def close(self) -> None:
        self.client.close()
        self.client.connection_pool.disconnect()
