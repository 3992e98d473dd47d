"""Which processes of a site live, and which sockets interface servers have, so that others tidy up after the dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from channelsq.core import names
from channelsq.core.wire_version import Announced, announcement, read_announcement

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
        self._client: Any = groups.client
        self._prefix = groups.prefix

    def _key(self, kind: str, process: str) -> str:
        return f"{self._prefix}:{kind}:{process}"

    def beat(self, process: str, lifetime: float) -> Beat:
        """Say that a process lives, for so many seconds from now on; errors as those of groups."""

        key, everybody, milliseconds = self._key("interface", process), f"{self._prefix}:interfaces", lifetime * 1000

        def command() -> Beat:
            # Only what a Redis that is full does, too, and no transaction, which that refuses.
            with self._client.pipeline(transaction=False) as pipe:
                pipe.pexpire(key, int(milliseconds))
                pipe.sismember(everybody, process)
                pipe.delete(self._key("sweep", process))  # whoever is at it leaves the rest to this process
                # Not deleted along with it: the answer may be lost, and then it would never be heard of.
                pipe.exists(self._key("buried", process))
                pipe.hlen(self._key("sockets", process))
                renewed, known, _, buried, sockets = pipe.execute()
            if not renewed or not known:
                with self._client.pipeline(transaction=True) as pipe:
                    pipe.set(key, announcement(), px=int(milliseconds))
                    pipe.sadd(everybody, process)
                    pipe.execute()
            return Beat(bool(buried), not known, sockets)

        beat: Beat = self._groups.call(command)
        return beat

    def revive(self, process: str) -> None:
        """A process has heard that it was taken for dead."""
        self._groups.call(lambda: self._client.delete(self._key("buried", process)))

    def note(self, process: str, opened: Mapping[str, str], closed: Sequence[str]) -> None:
        """Note sockets that were opened, with their paths, and such that are gone."""

        def command() -> None:
            with self._client.pipeline(transaction=True) as pipe:
                if opened:
                    pipe.hset(self._key("sockets", process), mapping=dict(opened))
                if closed:
                    pipe.hdel(self._key("sockets", process), *closed)
                pipe.execute()

        self._groups.call(command)

    def leave(self, process: str) -> None:
        """A process ends as it should."""

        def command() -> None:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(*(self._key(kind, process) for kind in ("interface", "sockets")))
                pipe.set(self._key("buried", process), "1", ex=_REMEMBERED_SHORTLY)
                pipe.srem(f"{self._prefix}:interfaces", process)
                pipe.execute()

        self._groups.call(command)

    # -- of versions

    def beat_worker(self, name: str, lifetime: float, more: Mapping[str, Any] | None = None) -> None:
        """Say that a worker lives, for so many seconds from now on; errors as those of groups.

        Args:
            more: what it announces besides, see :func:`channelsq.core.wire_version.announcement`.
        """

        def command() -> None:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._key("worker", name), announcement(more), px=int(lifetime * 1000))
                pipe.sadd(f"{self._prefix}:workers", name)
                pipe.execute()

        self._groups.call(command)

    def leave_worker(self, name: str) -> None:
        """A worker ends as it should."""

        def command() -> None:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.delete(self._key("worker", name))
                pipe.srem(f"{self._prefix}:workers", name)
                pipe.execute()

        self._groups.call(command)

    def announced(self) -> list[Announced]:
        """Return what the processes that live have announced; workers that live no more are forgotten."""

        def command() -> list[Announced]:
            found: list[Announced] = []
            for kind in ("interface", "worker"):
                everybody = f"{self._prefix}:{kind}s"
                processes = sorted(self._client.smembers(everybody))
                if not processes:
                    continue
                told = self._client.mget([self._key(kind, name) for name in processes])
                lives = [(name, text) for name, text in zip(processes, told, strict=True) if text is not None]
                found += [read_announcement(kind, name, text) for name, text in lives]
                if kind == "worker" and len(lives) < len(processes):
                    # One that is only late adds itself again with its next beat.
                    self._client.srem(everybody, *({*processes} - {name for name, _ in lives}))
            return found

        found: list[Announced] = self._groups.call(command)
        return found

    def socket_counts(self, processes: Sequence[str]) -> list[int]:
        """Return how many sockets each interface server has; errors as those of groups."""

        def command() -> list[int]:
            with self._client.pipeline(transaction=False) as pipe:
                for process in processes:
                    pipe.hlen(self._key("sockets", process))
                return list(pipe.execute())

        found: list[int] = self._groups.call(command)
        return found

    def paths(self, channels: Sequence[str]) -> list[str | None]:
        """Return the path of each socket, by its reply channel; None for what is no socket that is known."""

        def command() -> list[str | None]:
            with self._client.pipeline(transaction=False) as pipe:
                for channel in channels:
                    process = names.process_part(channel)[:-1] if names.is_process_channel(channel) else ""
                    pipe.hget(self._key("sockets", process.rpartition(".")[2]), channel)
                return list(pipe.execute())

        found: list[str | None] = self._groups.call(command)
        return found

    # -- of the dead

    def dead(self) -> list[str]:
        """The processes that have not said for too long that they live."""

        def command() -> list[str]:
            processes = sorted(self._client.smembers(f"{self._prefix}:interfaces"))
            with self._client.pipeline(transaction=False) as pipe:
                for process in processes:
                    pipe.exists(self._key("interface", process))
                lives = pipe.execute()
            return [process for process, alive in zip(processes, lives, strict=True) if not alive]

        found: list[str] = self._groups.call(command)
        return found

    def claim(self, process: str, seconds: float) -> bool:
        """Whether the caller, and for so long nobody else, is to tidy up after a process."""
        key = self._key("sweep", process)
        return bool(self._groups.call(lambda: self._client.set(key, "1", nx=True, px=int(seconds * 1000))))

    def keep(self, process: str, seconds: float) -> bool:
        """Have what :meth:`claim` gave last for so long from now on; false if it is lost: the process lives again."""
        return bool(self._groups.call(lambda: self._client.pexpire(self._key("sweep", process), int(seconds * 1000))))

    def release(self, process: str) -> None:
        """Give back what :meth:`claim` gave."""
        self._groups.call(lambda: self._client.delete(self._key("sweep", process)))

    def some_sockets(self, process: str, count: int) -> dict[str, str]:
        """About so many sockets of a process, with their paths; none if there are none."""
        key = self._key("sockets", process)

        def command() -> dict[str, str]:
            for channel, path in self._client.hscan_iter(key, count=count):
                some[channel] = path
                if len(some) >= count:
                    break
            return some

        some: dict[str, str] = {}
        return dict(self._groups.call(command))

    def members(self, process: str) -> Iterator[str]:
        """Channels of a process that are members of groups."""
        start = f"{self._prefix}:member:"
        for key in self._groups.call(lambda: list(self._client.scan_iter(f"{start}*.{process}!*", count=1000))):
            yield key.removeprefix(start)

    def condemn(self, process: str) -> None:
        """From now on nobody of a process joins a group, and if it comes back it knows that it was taken for dead."""
        self._groups.call(lambda: self._client.set(self._key("buried", process), "1", ex=_REMEMBERED))

    def bury(self, process: str) -> None:
        """Everything is tidied up after a process."""

        def command() -> None:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.set(self._key("buried", process), "1", ex=_REMEMBERED)
                pipe.srem(f"{self._prefix}:interfaces", process)
                pipe.delete(self._key("sockets", process), self._key("sweep", process))
                pipe.execute()

        self._groups.call(command)
