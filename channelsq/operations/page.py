"""A snapshot as a page of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from channelsq.core.wire_version import WIRE_VERSION, Announced
from channelsq.operations.snapshot import ChannelRow, LayerState, Listed, Snapshot
from channelsq.operations.tables import Cell, Column, Line, Page, Style, Table
from channelsq.operations.workers import Worker
from channelsq.version import __version__

#: The texts for unknown values, and for no value.
_UNKNOWN, _NONE = "?", "-"

#: The number of names in a line.
_LISTED = 10

#: The part of a channel's capacity from which it is coloured.
_NEARLY_FULL = 0.8


def page_of(snapshot: Snapshot, height: int | None = None) -> Page:
    """Return the page of a snapshot.

    Args:
        snapshot: the snapshot.
        height: the available lines; if they do not suffice, channels without messages are left out.
    """
    page = [block for state in snapshot.layers for block in _layer(state, brief=False)]
    if height is None or _lines(page) <= height:
        return page
    return [block for state in snapshot.layers for block in _layer(state, brief=True)]


def _lines(page: Page) -> int:
    return sum(len(block.rows) + 2 if isinstance(block, Table) else 1 + block.apart for block in page)


def _layer(state: LayerState, *, brief: bool) -> Iterator[Line | Table]:
    what = ", ".join(filter(None, (state.backend.rpartition(".")[2], state.url)))
    yield Line(f"layer {state.alias}: {what}", "head", True)
    if state.is_private:
        yield Line("it lives inside one process, and nothing of it can be seen from another")
    if state.problem:
        yield Line(state.problem, "bad")
    if state.members is not None:
        yield from _listed(state.members, "MEMBER", "PATH", "members")
        return
    shown = [row for row in state.channels if not (brief and row.is_quiet)]
    if shown:
        yield _channels(shown)
    if len(shown) < len(state.channels):
        yield from _quiet([row for row in state.channels if row.is_quiet], apart=not shown)
    if state.interfaces or state.workers:
        yield from _processes(state)
    elif state.interfaces is not None:
        yield Line("no interface server and no worker is announced", "warn", True)
    elif not (state.problem or state.is_private or state.is_inside):
        yield Line("no worker answered", "warn", True)
    if state.groups is not None:
        yield from _groups(state.groups)
    if state.sockets is not None:
        yield from _listed(state.sockets, "SOCKET", "PATH", "sockets")


def _quiet(rows: Sequence[ChannelRow], *, apart: bool) -> Iterator[Line]:
    yield Line(f"and {len(rows)} channels in which nothing waits", "dim", apart)
    unread = [row.name for row in rows if row.consumers == ()]
    if unread:
        more = f" and {len(unread) - _LISTED} more" if len(unread) > _LISTED else ""
        yield Line(f"no worker consumes {', '.join(unread[:_LISTED])}{more}", "bad")


def _channels(rows: Sequence[ChannelRow]) -> Table:
    columns = [
        Column("CHANNEL"),
        Column("WAITING", right=True),
        Column("HELD", right=True, rank=2),
        Column("OLDEST", right=True),
        Column("CAPACITY", right=True, rank=4),
        Column("DEAD", right=True, rank=3),
        Column("CONSUMERS", rank=1),
    ]
    return Table(columns, [_channel(row) for row in rows])


def _channel(row: ChannelRow) -> list[Cell]:
    state = row.state
    waiting: Style = "bad" if row.fullness >= 1 else "warn" if row.fullness >= _NEARLY_FULL else ""
    if row.consumers is None:
        consumers = Cell(_UNKNOWN, "dim")
    else:
        consumers = Cell(", ".join(row.consumers)) if row.consumers else Cell("none", "bad")
    return [
        Cell(row.name, "bad" if row.consumers == () else ""),
        _number(state.waiting, waiting),
        _number(state.held),
        Cell(_seconds(state.oldest), "" if state.oldest is None else waiting or ("warn" if state.oldest > 1 else "")),
        _number(row.capacity, "dim"),
        _number(state.dead, "bad" if state.dead else ""),
        consumers,
    ]


def _processes(state: LayerState) -> Iterator[Line | Table]:
    has_streams = any(each.streaming is not None for each in state.workers)
    tail = [Column("CHANNELSQ", rank=2), Column("WIRE", right=True, rank=3)]
    yield (
        Table(
            [
                Column("WORKER"),
                Column("WHERE", rank=4),
                Column("CHANNELS", right=True),
                *([Column("STREAMING", right=True)] if has_streams else []),
                Column("CONSUMERS RUN IN", rank=1),
                *tail,
            ],
            [
                [
                    Cell(each.name),
                    _where(each.announced),
                    _number(None if (read := each.channels[state.alias]) is None else len(read)),
                    *([_streaming(each)] if has_streams else []),
                    Cell(each.runs.removeprefix("consumers run in ") or _UNKNOWN),
                    *_versions(each.announced),
                ]
                for each in state.workers
            ],
        )
        if state.workers
        else Line("no worker is announced", "warn", True)
    )
    if state.interfaces is None:
        return
    has_gateways = any(server.protocol for server, _ in state.interfaces)
    yield (
        Table(
            [
                Column("INTERFACE SERVER"),
                *([Column("PROTOCOL")] if has_gateways else []),
                Column("WHERE", rank=1),
                Column("SOCKETS", right=True),
                *tail,
            ],
            [
                [
                    Cell(server.name),
                    *([Cell(server.protocol or "http, websocket")] if has_gateways else []),
                    _where(server),
                    _number(None if server.protocol else sockets),
                    *_versions(server),
                ]
                for server, sockets in state.interfaces
            ],
        )
        if state.interfaces
        else Line("no interface server is announced", "warn", True)
    )
    yield from _deploy([server for server, _ in state.interfaces] + [each.announced for each in state.workers])


def _deploy(processes: Sequence[Announced]) -> Iterator[Line]:
    """Yield lines about whether processes of several versions understand each other."""
    wires = sorted({each.wire for each in processes})
    if wires[-1] - wires[0] > 1:
        both = f"wire versions {wires[0]} and {wires[-1]}"
        yield Line(f"{both} do not understand each other: update one release at a time", "bad")
    elif len({each.version for each in processes}) > 1:
        yield Line("a mixed deploy: these versions understand each other", "warn")
    if any(not each.is_understood for each in processes):
        mine = f"this command's channelsq {__version__} (wire version {WIRE_VERSION})"
        yield Line(f"{mine} does not understand all of them", "bad")


def _groups(groups: Listed) -> Iterator[Line | Table]:
    if not groups.rows:
        text = "no group was found before the search was cut" if groups.cut else "no group has members"
        yield Line(text, "dim", True)
        return
    yield Table(
        [Column("GROUP"), Column("MEMBERS", right=True)],
        [[Cell(name), _number(size)] for name, size in groups.rows],
    )
    left = groups.total - len(groups.rows)
    if groups.cut:
        yield Line(f"the largest of {groups.total} groups that were looked at; there are more", "warn")
    elif left:
        yield Line(f"and {left} smaller groups; --limit shows more", "dim")


def _listed(listed: Listed, name: str, value: str, what: str) -> Iterator[Line | Table]:
    if not listed.rows:
        yield Line(f"no {what}", "dim", True)
        return
    rows = [[Cell(each), Cell(_NONE if value is None else str(value))] for each, value in listed.rows]
    yield Table([Column(name), Column(value, rank=1)], rows)
    left = listed.total - len(listed.rows)
    if left > 0:
        yield Line(f"and {left} more {what}; --limit shows more", "dim")


def _streaming(worker: Worker) -> Cell:
    """Return the number of running streaming responses, and their limit."""
    if worker.streaming is None:
        return Cell(_UNKNOWN)
    if worker.streaming_limit is None:
        return Cell(str(worker.streaming))
    full = worker.streaming >= worker.streaming_limit
    return Cell(f"{worker.streaming}/{worker.streaming_limit}", "bad" if full else "")


def _where(process: Announced) -> Cell:
    return Cell(f"{process.host}:{process.pid}" if process.host else _UNKNOWN, "dim")


def _versions(process: Announced) -> list[Cell]:
    style: Style = "" if process.is_understood else "bad"
    return [Cell(process.version or _UNKNOWN, style), Cell(str(process.wire), style)]


def _number(number: int | None, style: Style = "") -> Cell:
    return Cell(_NONE if number is None else str(number), style)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return _NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
