"""The running processes of a site and the sockets of its interface servers; other processes clean up for dead ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from channelsq.core import names
from channelsq.core.wire_version import Announced, announcement, read_announcement
from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.entries import pairs
from channelsq.redis_core.groups import matching_keys
from channelsq.redis_core.operations import Operation, ask, transaction

if TYPE_CHECKING:
    from channelsq.layers.groups.group_stores import RedisGroups

#: Seconds for which a process stays marked as dead, and one that ended regularly: as long as a consumer may still work
#: for one of its sockets.
_REMEMBERED, _REMEMBERED_SHORTLY = 3600, 300


class Beat(NamedTuple):
    """The state of a process when its heartbeat is written."""

    #: Whether another process took it for dead and has begun to clean up for it.
    is_marked_dead: bool
    #: Whether it was not registered: it is new, or Redis has lost its data.
    unknown: bool
    #: How many of its sockets are registered.
    sockets: int


class Presence:
    """The records of the site's processes, in the Redis that holds the groups.

    Keys, all with the groups' prefix:

    ``<prefix>:interfaces``             set: the interface servers
    ``<prefix>:interface:<process>``    string that expires: the heartbeat, with the process's announcement
    ``<prefix>:sockets:<process>``      hash: the path of each of its sockets, by reply channel
    ``<prefix>:buried:<process>``       string that expires: it has ended, or was taken for dead; its clients join no
                                        groups any more, see :meth:`RedisGroups.add`
    ``<prefix>:sweep:<process>``        string that expires: one process is cleaning up for it
    ``<prefix>:workers``                set: the workers
    ``<prefix>:worker:<name>``          string that expires: the heartbeat, with the worker's announcement

    Args:
        groups: the groups in that Redis.
    """

    def __init__(self, groups: RedisGroups) -> None:
        self._groups = groups
        self._prefix = groups.prefix

    def _key(self, kind: str, process: str) -> str:
        return f"{self._prefix}:{kind}:{process}"

    def _ask(self, *commands: Command) -> list[Reply]:
        return self._groups.carry_out(lambda: ask(*commands))

    def _transact(self, *commands: Command) -> list[Reply]:
        return self._groups.carry_out(lambda: transaction(*commands))

    def beat(self, process: str, lifetime: float, more: Mapping[str, Any] | None = None) -> Beat:
        """Write the heartbeat of a process for ``lifetime`` seconds; errors as those of groups.

        Args:
            process: the process.
            lifetime: the seconds.
            more: further announcements, see :func:`channelsq.core.wire_version.announcement`.
        """
        key, everybody, milliseconds = self._key("interface", process), f"{self._prefix}:interfaces", lifetime * 1000
        # Only commands that a server with full memory accepts; it refuses transactions.
        renewed, known, _, is_marked_dead, sockets = self._ask(
            ("PEXPIRE", key, int(milliseconds)),
            ("SISMEMBER", everybody, process),
            ("DEL", self._key("sweep", process)),  # a process that is cleaning up stops
            # Not deleted in the same write: if the answer were lost, the process would never learn of it.
            ("EXISTS", self._key("buried", process)),
            ("HLEN", self._key("sockets", process)),
        )
        if not renewed or not known:
            self._transact(
                ("SET", key, announcement(more), "PX", int(milliseconds)),
                ("SADD", everybody, process),
            )
        return Beat(bool(is_marked_dead), not known, int(sockets))

    def revive(self, process: str) -> None:
        """Delete the mark of a process that has learned that it was taken for dead."""
        self._ask(("DEL", self._key("buried", process)))

    def note(self, process: str, opened: Mapping[str, str], closed: Sequence[str]) -> None:
        """Register opened sockets with their paths, and remove closed ones."""
        key = self._key("sockets", process)
        commands: list[Command] = []
        if opened:
            commands.append(("HSET", key, *itertools.chain.from_iterable(opened.items())))
        if closed:
            commands.append(("HDEL", key, *closed))
        if commands:
            self._transact(*commands)

    def leave(self, process: str) -> None:
        """Remove a process that ends regularly."""
        self._transact(
            ("DEL", *(self._key(kind, process) for kind in ("interface", "sockets"))),
            ("SET", self._key("buried", process), "1", "EX", _REMEMBERED_SHORTLY),
            ("SREM", f"{self._prefix}:interfaces", process),
        )

    # -- Versions

    def beat_worker(self, name: str, lifetime: float, more: Mapping[str, Any] | None = None) -> None:
        """Write the heartbeat of a worker for ``lifetime`` seconds; errors as those of groups.

        Args:
            more: further announcements, see :func:`channelsq.core.wire_version.announcement`.
        """
        self._ask(
            ("SET", self._key("worker", name), announcement(more), "PX", int(lifetime * 1000)),
            ("SADD", f"{self._prefix}:workers", name),
        )

    def leave_worker(self, name: str) -> None:
        """Remove a worker that ends regularly."""
        self._ask(("DEL", self._key("worker", name)), ("SREM", f"{self._prefix}:workers", name))

    def announced(self) -> list[Announced]:
        """Return the announcements of running processes; remove workers without a heartbeat."""
        return self._groups.carry_out(self._announced)

    def _announced(self) -> Operation[list[Announced]]:
        found: list[Announced] = []
        for kind in ("interface", "worker"):
            everybody = f"{self._prefix}:{kind}s"
            processes = yield from self._members(everybody)
            if not processes:
                continue
            (values,) = yield from ask(("MGET", *(self._key(kind, name) for name in processes)))
            lives = {name: text.decode() for name, text in zip(processes, values, strict=True) if text is not None}
            found += [read_announcement(kind, name, text) for name, text in lives.items()]
            if kind == "worker" and len(lives) < len(processes):
                # A worker that is only late registers again with its next heartbeat.
                yield from ask(("SREM", everybody, *({*processes} - {*lives})))
        return found

    @staticmethod
    def _members(key: str) -> Operation[list[str]]:
        (members,) = yield from ask(("SMEMBERS", key))
        return sorted(member.decode() for member in members)

    def socket_counts(self, processes: Sequence[str]) -> list[int]:
        """Return how many sockets each interface server has; errors as those of groups."""
        return list(map(int, self._ask(*[("HLEN", self._key("sockets", process)) for process in processes])))

    def paths(self, channels: Sequence[str]) -> list[str | None]:
        """Return the path of each socket, by its reply channel; None for a channel that is not a registered socket."""
        commands: list[Command] = []
        for channel in channels:
            process = names.process_part(channel)[:-1] if names.is_process_channel(channel) else ""
            commands.append(("HGET", self._key("sockets", process.rpartition(".")[2]), channel))
        return [None if path is None else path.decode() for path in self._ask(*commands)]

    # -- Dead processes

    def dead(self) -> list[str]:
        """Return the processes without a heartbeat."""
        return self._groups.carry_out(self._dead)

    def _dead(self) -> Operation[list[str]]:
        processes = yield from self._members(f"{self._prefix}:interfaces")
        lives = yield from ask(*[("EXISTS", self._key("interface", process)) for process in processes])
        return [process for process, alive in zip(processes, lives, strict=True) if not alive]

    def alive(self, processes: Sequence[str]) -> set[str]:
        """Return those of some processes that have a heartbeat here."""
        lives = self._ask(*[("EXISTS", self._key("interface", process)) for process in processes])
        return {process for process, alive in zip(processes, lives, strict=True) if alive}

    def claim(self, process: str, seconds: float) -> bool:
        """Claim the clean-up for a process for so many seconds; return False if another process has claimed it."""
        (taken,) = self._ask(("SET", self._key("sweep", process), "1", "NX", "PX", int(seconds * 1000)))
        return bool(taken)

    def keep(self, process: str, seconds: float) -> bool:
        """Extend a claim to ``seconds`` from now; return False if it is lost, because the process is alive again."""
        (kept,) = self._ask(("PEXPIRE", self._key("sweep", process), int(seconds * 1000)))
        return bool(kept)

    def release(self, process: str) -> None:
        """Release a claim."""
        self._ask(("DEL", self._key("sweep", process)))

    def some_sockets(self, process: str, count: int) -> dict[str, str]:
        """Return about ``count`` sockets of a process, with their paths; an empty dict if it has none."""
        return self._groups.carry_out(lambda: self._some_sockets(process, count))

    def _some_sockets(self, process: str, count: int) -> Operation[dict[str, str]]:
        some: dict[str, str] = {}
        cursor = b"0"
        while True:
            ((cursor, found),) = yield from ask(("HSCAN", self._key("sockets", process), cursor, "COUNT", count))
            some.update((channel.decode(), path.decode()) for channel, path in pairs(found).items())
            if int(cursor) == 0 or len(some) >= count:
                return some

    def members(self, process: str) -> Iterator[str]:
        """Yield the channels of a process that are members of groups."""
        start = f"{self._prefix}:member:"
        for key in self._groups.carry_out(lambda: matching_keys(f"{start}*.{process}!*")):
            yield key.removeprefix(start)

    def mark_dead(self, process: str) -> None:
        """Mark a process as dead: its clients join no groups any more, and it learns of the mark if it comes back."""
        self._ask(("SET", self._key("buried", process), "1", "EX", _REMEMBERED))

    def remove(self, process: str) -> None:
        """Remove a process after the clean-up; one that has come back meanwhile registers again."""
        self._transact(
            ("SET", self._key("buried", process), "1", "XX", "EX", _REMEMBERED),
            ("SREM", f"{self._prefix}:interfaces", process),
            ("DEL", self._key("sockets", process), self._key("sweep", process)),
        )
