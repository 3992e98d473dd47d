"""The state of a site's layers and processes at one moment."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.core.bounded import within
from channelsq.core.wire_version import Announced
from channelsq.exceptions import ChannelsqError
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.layer_values import ChannelState
from channelsq.layers.groups.presence import Presence
from channelsq.operations.workers import INSPECT_ERRORS, Worker, announced, inspected, merged
from channelsq.routing import consumed_channels
from channelsq.version import __version__

#: The version of the JSON; incremented when a field changes its meaning or is removed.
SCHEMA = 1

#: Seconds that one layer may take in all.
PATIENCE = 15.0

#: Seconds for counting the groups of a layer.
_COUNTED_FOR = 2.0

#: The most groups that are read to find the largest.
MOST_GROUPS = 10_000

#: Seconds that workers have to answer over Celery's broker.
_INSPECTED_FOR = 1.0


@dataclass(frozen=True)
class Wanted:
    """The requested parts of a site's state."""

    #: The number of listed groups, members and sockets.
    limit: int = 20
    groups: bool = True
    #: The group whose members are listed.
    group: str | None = None
    sockets: bool = False
    #: Whether to ask workers over Celery's broker although they announce themselves.
    inspect: bool = False
    #: Whether this process is the one in which layers inside a process live, so that it can read them.
    inside: bool = False


@dataclass(frozen=True)
class ChannelRow:
    """One channel that workers consume."""

    name: str
    state: ChannelState
    capacity: int
    #: The workers that read it; None if unknown.
    consumers: tuple[str, ...] | None

    @property
    def fullness(self) -> float:
        """The part of its capacity that is in use."""
        return (self.state.waiting or 0) / self.capacity

    @property
    def is_quiet(self) -> bool:
        """True if no message waits in it, is held, or is a dead letter."""
        return not (self.state.waiting or self.state.held or self.state.dead)


@dataclass(frozen=True)
class Listed:
    """Some of many names, each with a value."""

    rows: list[tuple[str, Any]]
    #: The number of names, as far as counted.
    total: int
    #: Whether there may be more than ``total``.
    cut: bool = False


@dataclass
class LayerState:
    """The state of one layer."""

    alias: str
    backend: str = ""
    url: str = ""
    channels: list[ChannelRow] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    #: Interface servers with the number of their sockets; None if the layer does not know them.
    interfaces: list[tuple[Announced, int]] | None = None
    #: Groups with the numbers of their members, the largest first.
    groups: Listed | None = None
    #: Members of the requested group, with their paths.
    members: Listed | None = None
    #: Sockets with their paths.
    sockets: Listed | None = None
    #: Why the state, or a part of it, is unknown.
    problem: str = ""
    #: Whether only one other process knows the state.
    is_private: bool = False
    #: Whether the layer and its worker are inside this process.
    is_inside: bool = False


@dataclass(frozen=True)
class Snapshot:
    """The state of all layers."""

    time: datetime
    layers: list[LayerState]

    @property
    def has_problem(self) -> bool:
        """True if a layer could not be read."""
        return any(each.problem for each in self.layers)


def take(aliases: Iterable[str], wanted: Wanted) -> Snapshot:
    """Return the state of layers, read one after another; each has a time limit."""
    return Snapshot(datetime.now(UTC), [_look(alias, wanted) for alias in aliases])


def _look(alias: str, wanted: Wanted) -> LayerState:
    state = LayerState(alias)
    try:
        within(PATIENCE, functools.partial(_fill, state, wanted))
    except TimeoutError:
        state.problem = state.problem or f"it was given up after {PATIENCE:g} s"
    except (ChannelsqError, ValueError, ImportError) as error:
        state.problem = str(error)
    return state


def _fill(state: LayerState, wanted: Wanted) -> None:
    layer = channel_layers[state.alias]
    inner = layer.channel_layer
    state.backend = conf.layer_settings(state.alias).backend
    if layer.in_process and not wanted.inside:
        state.is_private = True
        return
    state.is_inside = layer.in_process
    state.url = shown(str(getattr(inner, "url", "")))
    announcements = announced(layer)
    answers: dict[str, dict[str, Any]] = {}
    if (announcements is None and not layer.in_process) or wanted.inspect:
        try:
            answers = inspected(conf.celery_app(), _INSPECTED_FOR)
        except INSPECT_ERRORS as error:
            state.problem = f"workers could not be asked over Celery's broker: {error}"
    workers = merged([(state.alias, each) for each in announcements or ()], answers)
    state.workers = [each for each in workers if state.alias in each.channels]
    presence = inner.presence
    if announcements is not None and presence is not None:
        running = [each for each in announcements if each.kind == "interface"]
        counts = presence.socket_counts([each.name for each in running])
        state.interfaces = list(zip(running, counts, strict=True))
    servers = [server for server, _ in state.interfaces or ()]
    state.channels = _channels(layer, state.workers, servers, known=not (state.problem or layer.in_process))
    if wanted.sockets and presence is not None:
        state.sockets = _sockets(presence, state.interfaces or (), wanted.limit)
    if wanted.group is not None:
        state.members = _members(layer, presence, wanted.group, wanted.limit)
    elif wanted.groups:
        sizes, cut = inner.group_sizes(MOST_GROUPS, _COUNTED_FOR)
        largest = sorted(sizes.items(), key=lambda each: (-each[1], each[0]))
        state.groups = Listed(largest[: wanted.limit], len(sizes), cut)


def _channels(
    layer: ChannelLayerWrapper, workers: Sequence[Worker], servers: Sequence[Announced], *, known: bool
) -> list[ChannelRow]:
    """Return the channels that workers consume, then those that interface servers of other protocols read."""
    layer.router.check_default()
    rows = []
    for name in consumed_channels(layer.router):
        readers = tuple(each.name for each in workers if name in (each.channels[layer.alias] or ()))
        unknown = not known or any(each.channels[layer.alias] is None for each in workers)
        consumers = None if unknown and not readers else readers
        rows.append(ChannelRow(name, layer.channel_layer.channel_state(name), layer.capacity_of(name), consumers))
    for name in sorted({channel for server in servers for channel in server.channels or ()}):
        readers = tuple(server.name for server in servers if name in (server.channels or ()))
        rows.append(ChannelRow(name, layer.channel_layer.channel_state(name), layer.capacity_of(name), readers))
    return rows


def _sockets(presence: Presence, servers: Sequence[tuple[Announced, int]], limit: int) -> Listed:
    rows: list[tuple[str, Any]] = []
    for server, _ in servers:
        if len(rows) < limit:
            rows += sorted(presence.some_sockets(server.name, limit - len(rows)).items())[: limit - len(rows)]
    return Listed(rows, sum(count for _, count in servers))


def _members(layer: ChannelLayerWrapper, presence: Presence | None, group: str, limit: int) -> Listed:
    some, total = layer.channel_layer.some_members(group, limit)
    some.sort()
    paths = [None] * len(some) if presence is None else presence.paths(some)
    return Listed(list(zip(some, paths, strict=True)), total)


# -- for programs ---------------------------------------------------------------------------------


def as_dict(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot for JSON; docs/how-to/run/operations.md describes its fields."""
    return {
        "schema": SCHEMA,
        "channelsq": __version__,
        "time": snapshot.time.isoformat(timespec="milliseconds"),
        "layers": [_layer_as_dict(each) for each in snapshot.layers],
    }


def _layer_as_dict(state: LayerState) -> dict[str, Any]:
    return {
        "layer": state.alias,
        "backend": state.backend,
        "url": state.url or None,
        "private": state.is_private,
        "problem": state.problem or None,
        "channels": [
            {
                "channel": row.name,
                **row.state._asdict(),
                "oldest": None if row.state.oldest is None else round(row.state.oldest, 3),
                "capacity": row.capacity,
                "consumers": None if row.consumers is None else list(row.consumers),
            }
            for row in state.channels
        ],
        "workers": [
            {**_process_as_dict(each.announced), "runs": each.runs}
            | {"streaming": each.streaming, "streaming_limit": each.streaming_limit}
            | {"channels": None if (read := each.channels[state.alias]) is None else list(read)}
            for each in state.workers
        ],
        "interfaces": None
        if state.interfaces is None
        else [
            {**_process_as_dict(server), "protocol": server.protocol or None, "sockets": sockets}
            for server, sockets in state.interfaces
        ],
        "groups": _listed_as_dict(state.groups, "group", "members"),
        "members": _listed_as_dict(state.members, "channel", "path"),
        "sockets": _listed_as_dict(state.sockets, "channel", "path"),
    }


def _process_as_dict(process: Announced) -> dict[str, Any]:
    return {
        "name": process.name,
        "host": process.host or None,
        "pid": process.pid or None,
        "version": process.version or None,
        "wire": process.wire,
        "understood": process.is_understood,
    }


def _listed_as_dict(listed: Listed | None, name: str, value: str) -> dict[str, Any] | None:
    if listed is None:
        return None
    rows = [{name: each, value: what} for each, what in listed.rows]
    return {"shown": rows, "total": listed.total, "cut": listed.cut}
