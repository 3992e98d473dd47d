"""Entries of streams in replies, and the commands that acknowledge them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from channelsq.redis_core.commands import Argument, Command, Reply

#: The consumer group of every stream.
GROUP = "kombu"

#: The prefix of the keys of dead letters, after the global key prefix; the queue's name follows.
DEAD_PREFIX = "stream-dead:"


class Entry(NamedTuple):
    """A message that a consumer holds."""

    key: str
    id: str
    data: bytes
    #: Whether another consumer held the message before.
    redelivered: bool = False
    #: How many consumers died while they held the message.
    deaths: int = 0

    @property
    def tag(self) -> str:
        """The entry's delivery tag for Kombu."""
        return f"{self.id} {self.key}"


class Copy(NamedTuple):
    """The replacement of an entry that is given back; without data the entry has no replacement."""

    key: str
    id: str
    data: bytes
    #: ms; None for a message that does not expire.
    lifetime: int | None
    #: How many consumers died while they held the message.
    deaths: int = 0


def parse_tag(tag: str) -> tuple[str, str] | None:
    """Return ``(key, id)`` of an entry's tag; None for the tag of a fanout message, which has no entry."""
    entry, space, key = tag.partition(" ")
    return (key, entry) if space else None


def pairs(fields: Any) -> Mapping[Any, Any]:
    """Return a map in a reply as a mapping; before RESP3 a map is a list of names and values."""
    if not fields:
        return {}
    return dict(zip(fields[::2], fields[1::2], strict=False)) if isinstance(fields, list) else fields


def read_entries(key: str, entries: Any, claimed: bool = False) -> Iterator[Entry]:
    """Return the entries of one stream in a reply; those taken over from dead consumers are redelivered.

    An entry without a field ``m``, written by another program, gets empty data, which fails to decode later.
    """
    for entry, fields in entries:
        if type(fields) is list and len(fields) == 4 and fields[0] == b"m" and fields[2] == b"x":
            yield Entry(key, entry.decode(), fields[1], claimed)  # the usual case, without a dict
            continue
        values = pairs(fields)
        data, deaths = values.get(b"m", b""), values.get(b"d", b"")
        count = int(deaths) if deaths.isdigit() else 0
        yield Entry(key, entry.decode(), data if isinstance(data, bytes) else b"", claimed or count > 0, count)


def read_streams(reply: Reply, claimed: bool = False) -> Iterator[tuple[str, list[Entry]]]:
    """Return each stream's key and entries in a reply of XREADGROUP, of take.lua, or of take_over.lua (``claimed``)."""
    for key, entries in reply.items() if isinstance(reply, Mapping) else reply or ():
        yield key.decode(), list(read_entries(key.decode(), entries, claimed))


def ack_commands(held: Iterable[tuple[str, str]]) -> list[Command]:
    """Return XACK and XDEL for ``(key, id)`` pairs."""
    ids: dict[str, list[Argument]] = {}
    for key, entry in held:
        ids.setdefault(key, []).append(entry)
    commands: list[Command] = []
    for key, entries in ids.items():
        commands.append(("XACK", key, GROUP, *entries))
        commands.append(("XDEL", key, *entries))
    return commands
