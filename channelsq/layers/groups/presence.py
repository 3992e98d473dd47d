"""Which processes of a site live, and which sockets interface servers have, so that others tidy up after the dead."""

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

#: Seconds that a process is remembered as taken for dead, and one that ended by itself: for as long as a consumer may
#: still work for a socket of it.
_REMEMBERED, _REMEMBERED_SHORTLY = 3600, 300


class Beat(NamedTuple):
    """What a process learns when it says that it lives."""

    #: Whether others have taken it for dead, and tidied up after it or begun to.
    buried: bool
    #: Whether nobody knew it: it is new, or Redis has lost everything.
    unknown: bool
    #: How many sockets are noted of it.
    sockets: int


class Presence:
    """The records of the site's processes, in the Redis that holds the groups.

    Keys, all under the groups' prefix:

    ``<prefix>:interfaces``             set: the interface servers
    ``<prefix>:interface:<process>``    string that expires: the process lives; what it announces of itself
    ``<prefix>:sockets:<process>``      hash: the path of each of its sockets, by reply channel
    ``<prefix>:buried:<process>``       string that expires: it has ended, or others have tidied up after it; nobody
                                        of it joins a group any more, see :meth:`RedisGroups.add`
    ``<prefix>:sweep:<process>``        string that expires: one process is doing so
    ``<prefix>:workers``                set: the workers
    ``<prefix>:worker:<name>``          string that expires: the worker lives; what it announces of itself

    Args:
        groups: where the groups are.
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

    def beat(self, process: str, lifetime: float) -> Beat:
        """Say that a process lives, for so many seconds from now on; errors as those of groups."""
        key, everybody, milliseconds = self._key("interface", process), f"{self._prefix}:interfaces", lifetime * 1000
        # Only what a Redis that is full does, too, and no transaction, which that refuses.
        renewed, known, _, buried, sockets = self._ask(
            ("PEXPIRE", key, int(milliseconds)),
            ("SISMEMBER", everybody, process),
            ("DEL", self._key("sweep", process)),  # whoever is at it leaves the rest to this process
            # Not deleted along with it: the answer may be lost, and then it would never be heard of.
            ("EXISTS", self._key("buried", process)),
            ("HLEN", self._key("sockets", process)),
        )
        if not renewed or not known:
            self._transact(
                ("SET", key, announcement(), "PX", int(milliseconds)),
                ("SADD", everybody, process),
            )
        return Beat(bool(buried), not known, int(sockets))

    def revive(self, process: str) -> None:
        """A process has heard that it was taken for dead."""
        self._ask(("DEL", self._key("buried", process)))

    def note(self, process: str, opened: Mapping[str, str], closed: Sequence[str]) -> None:
        """Note sockets that were opened, with their paths, and such that are gone."""
        key = self._key("sockets", process)
        commands: list[Command] = []
        if opened:
            commands.append(("HSET", key, *itertools.chain.from_iterable(opened.items())))
        if closed:
            commands.append(("HDEL", key, *closed))
        if commands:
            self._transact(*commands)

    def leave(self, process: str) -> None:
        """A process ends as it should."""
        self._transact(
            ("DEL", *(self._key(kind, process) for kind in ("interface", "sockets"))),
            ("SET", self._key("buried", process), "1", "EX", _REMEMBERED_SHORTLY),
            ("SREM", f"{self._prefix}:interfaces", process),
        )

    # -- of versions

    def beat_worker(self, name: str, lifetime: float, more: Mapping[str, Any] | None = None) -> None:
        """Say that a worker lives, for so many seconds from now on; errors as those of groups.

        Args:
            more: what it announces besides, see :func:`channelsq.core.wire_version.announcement`.
        """
        self._ask(
            ("SET", self._key("worker", name), announcement(more), "PX", int(lifetime * 1000)),
            ("SADD", f"{self._prefix}:workers", name),
        )

    def leave_worker(self, name: str) -> None:
        """A worker ends as it should."""
        self._ask(("DEL", self._key("worker", name)), ("SREM", f"{self._prefix}:workers", name))

    def announced(self) -> list[Announced]:
        """Return what the processes that live have announced; workers that live no more are forgotten."""
        return self._groups.carry_out(self._announced)

    def _announced(self) -> Operation[list[Announced]]:
        found: list[Announced] = []
        for kind in ("interface", "worker"):
            everybody = f"{self._prefix}:{kind}s"
            processes = yield from self._members(everybody)
            if not processes:
                continue
            (told,) = yield from ask(("MGET", *(self._key(kind, name) for name in processes)))
            lives = {name: text.decode() for name, text in zip(processes, told, strict=True) if text is not None}
            found += [read_announcement(kind, name, text) for name, text in lives.items()]
            if kind == "worker" and len(lives) < len(processes):
                # One that is only late adds itself again with its next beat.
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
        """Return the path of each socket, by its reply channel; None for what is no socket that is known."""
        commands: list[Command] = []
        for channel in channels:
            process = names.process_part(channel)[:-1] if names.is_process_channel(channel) else ""
            commands.append(("HGET", self._key("sockets", process.rpartition(".")[2]), channel))
        return [None if path is None else path.decode() for path in self._ask(*commands)]

    # -- of the dead

    def dead(self) -> list[str]:
        """The processes that have not said for too long that they live."""
        return self._groups.carry_out(self._dead)

    def _dead(self) -> Operation[list[str]]:
        processes = yield from self._members(f"{self._prefix}:interfaces")
        lives = yield from ask(*[("EXISTS", self._key("interface", process)) for process in processes])
        return [process for process, alive in zip(processes, lives, strict=True) if not alive]

    def claim(self, process: str, seconds: float) -> bool:
        """Whether the caller, and for so long nobody else, is to tidy up after a process."""
        (taken,) = self._ask(("SET", self._key("sweep", process), "1", "NX", "PX", int(seconds * 1000)))
        return bool(taken)

    def keep(self, process: str, seconds: float) -> bool:
        """Have what :meth:`claim` gave last for so long from now on; false if it is lost: the process lives again."""
        (kept,) = self._ask(("PEXPIRE", self._key("sweep", process), int(seconds * 1000)))
        return bool(kept)

    def release(self, process: str) -> None:
        """Give back what :meth:`claim` gave."""
        self._ask(("DEL", self._key("sweep", process)))

    def some_sockets(self, process: str, count: int) -> dict[str, str]:
        """About so many sockets of a process, with their paths; none if there are none."""
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
        """Channels of a process that are members of groups."""
        start = f"{self._prefix}:member:"
        for key in self._groups.carry_out(lambda: matching_keys(f"{start}*.{process}!*")):
            yield key.removeprefix(start)

    def condemn(self, process: str) -> None:
        """From now on nobody of a process joins a group, and if it comes back it knows that it was taken for dead."""
        self._ask(("SET", self._key("buried", process), "1", "EX", _REMEMBERED))

    def bury(self, process: str) -> None:
        """Everything is tidied up after a process."""
        self._transact(
            ("SET", self._key("buried", process), "1", "EX", _REMEMBERED),
            ("SREM", f"{self._prefix}:interfaces", process),
            ("DEL", self._key("sockets", process), self._key("sweep", process)),
        )
