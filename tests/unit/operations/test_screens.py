"""Pages of what a site does, and how they fit terminals."""

from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from channelsq import __version__
from channelsq.core.wire_version import Announced
from channelsq.layers.contract.layer_values import ChannelState
from channelsq.operations import screens
from channelsq.operations.page import page_of
from channelsq.operations.screens import Screen, text_of
from channelsq.operations.snapshot import ChannelRow, LayerState, Listed, Snapshot
from channelsq.operations.tables import Cell, Column, Line, Table, fitted, shortened
from channelsq.operations.workers import Worker
from tests.support.fakes.terminals import FakeTerminal

CHANNELS = [
    ChannelRow("http.request", ChannelState(0, 0, None, 0), 100, ("celery@one",)),
    ChannelRow("jobs", ChannelState(100, 2, 75.4, 3), 100, ("celery@one", "celery@two")),
    ChannelRow("unread", ChannelState(0, 0, None, 0), 100, ()),
    ChannelRow("unknown", ChannelState(5), 100, None),
]


def a_layer(**changes: Any) -> LayerState:
    worker = Worker("celery@one", __version__, 1, "host-1", 17, "consumers run in 8 threads of the worker")
    worker.channels["default"] = ("http.request", "jobs")
    state = LayerState("default", "channelsq.layers.RedisChannelLayer", "redis-streams://host:6379/0")
    state.channels, state.workers = CHANNELS, [worker]
    state.interfaces = [(Announced("interface", "0b8a446115a2", 1, __version__, "host-2", 4), 12)]
    state.groups = Listed([("room", 12), ("other", 3)], 2)
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def shown(width: int | None = None, height: int | None = None, **changes: Any) -> str:
    return text_of(page_of(Snapshot(datetime.now(UTC), [a_layer(**changes)]), height), width)


def test_the_whole_page() -> None:
    assert shown().splitlines() == [
        "layer default: RedisChannelLayer, redis-streams://host:6379/0",
        "",
        "CHANNEL       WAITING  HELD  OLDEST  CAPACITY  DEAD  CONSUMERS",
        "http.request        0     0       -       100     0  celery@one",
        "jobs              100     2    75 s       100     3  celery@one, celery@two",
        "unread              0     0       -       100     0  none",
        "unknown             5     -       -       100     -  ?",
        "",
        "WORKER      WHERE      CHANNELS  CONSUMERS RUN IN         CHANNELSQ  WIRE",
        f"celery@one  host-1:17         2  8 threads of the worker  {__version__:<9}     1",
        "",
        "INTERFACE SERVER  WHERE     SOCKETS  CHANNELSQ  WIRE",
        f"0b8a446115a2      host-2:4       12  {__version__:<9}     1",
        "",
        "GROUP  MEMBERS",
        "room        12",
        "other        3",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_it_is_never_wider_than_the_terminal(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    assert "OLDEST" in text
    assert ("CONSUMERS" in text) is (width >= 60)


def test_where_there_are_few_lines_channels_in_which_nothing_happens_are_left_out() -> None:
    text = shown(None, 15)
    assert "http.request  " not in text
    assert "and 2 channels in which nothing waits\nno worker consumes unread\n" in text
    assert "jobs " in text
    assert "unknown " in text
    assert shown(None, 18) == shown()


def test_groups_that_are_not_all_shown() -> None:
    assert "and 8 smaller groups; --limit shows more" in shown(groups=Listed([("room", 12)], 9))
    assert "the largest of 9 groups that were looked at; there are more" in shown(
        groups=Listed([("room", 12)], 9, True)
    )
    assert "no group has members" in shown(groups=Listed([], 0))
    assert "no group was found before the search was cut" in shown(groups=Listed([], 0, True))


def test_members_stand_alone() -> None:
    text = shown(members=Listed([("websocket.send.p!1", "/chat/"), ("websocket.send.q!1", None)], 9))
    assert [line.split() for line in text.splitlines()[2:5]] == [
        ["MEMBER", "PATH"], ["websocket.send.p!1", "/chat/"], ["websocket.send.q!1", "-"],
    ]  # fmt: skip
    assert text.endswith("and 7 more members; --limit shows more")
    assert "CHANNEL" not in text


def test_layers_of_which_little_is_known() -> None:
    text = shown(channels=[], workers=[], interfaces=[], groups=None, problem="no connection to redis://host")
    assert text.splitlines() == [
        "layer default: RedisChannelLayer, redis-streams://host:6379/0",
        "no connection to redis://host",
        "",
        "no interface server and no worker is announced",
    ]
    assert "no worker answered" in shown(channels=[], workers=[], interfaces=None, groups=None)
    private = shown(channels=[], workers=[], interfaces=None, groups=None, is_private=True, url="")
    assert private.splitlines()[1:] == ["it lives inside one process, and nothing of it can be seen from another"]


def test_running_streams_have_a_column_where_they_are_announced() -> None:
    assert "STREAMING" not in shown()
    state = a_layer()
    for streaming, limit, text in ((4, 5, "4/5"), (4, None, "4")):
        state.workers[0].streaming, state.workers[0].streaming_limit = streaming, limit
        page = text_of(page_of(Snapshot(datetime.now(UTC), [state])), None)
        assert re.search(rf"CHANNELS  STREAMING .*\n.* 2 +{text}  8 threads", page)


def test_versions_that_do_not_understand_each_other() -> None:
    assert "mixed" not in shown()
    mixed = Announced("interface", "x", 2, "9.0")
    text = shown(interfaces=[(mixed, 0)])
    assert "a mixed deploy: these versions understand each other" in text
    text = shown(interfaces=[(mixed._replace(wire=3), 0)])
    assert "wire versions 1 and 3 do not understand each other: update one release at a time" in text
    assert "does not understand all of them" in text


# -- tables -----------------------------------------------------------------------------------------


def test_columns_go_by_rank_and_then_texts_are_cut() -> None:
    table = Table(
        [Column("A"), Column("NUMBER", right=True, rank=2), Column("C", rank=1)],
        [[Cell("a" * 20), Cell("1"), Cell("c" * 10)]],
    )
    assert fitted(table, None) is table
    assert [column.title for column in fitted(table, 40).columns] == ["A", "NUMBER", "C"]
    assert [column.title for column in fitted(table, 39).columns] == ["A", "C"]
    assert [column.title for column in fitted(table, 20).columns] == ["A"]
    assert fitted(table, 12).rows[0][0].text == "a" * 11 + "~"
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab~"


# -- screens ----------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "15")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return FakeTerminal()


PAGE: list[Line | Table] = [
    Line("layer", "head"),
    Table([Column("A"), Column("B", right=True)], [[Cell("a", "bad"), Cell("1")]]),
]

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_colours_are_for_terminals_alone(terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    Screen(file).show(PAGE)
    assert file.getvalue() == "layer\n\nA  B\na  1\n"
    Screen(terminal).show(PAGE)
    assert "\x1b[1;31ma" in terminal.getvalue()
    assert [line.rstrip() for line in ESCAPES.sub("", terminal.getvalue()).splitlines()] == [
        "layer",
        "",
        "A  B",
        "a  1",
    ]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = FakeTerminal()
    Screen(plain).show(PAGE)
    assert plain.getvalue() == file.getvalue()


def test_a_terminal_without_rich(terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    Screen(terminal).show(PAGE)
    assert terminal.getvalue() == "layer\n\nA  B\na  1\n"
    Screen(terminal).watch(lambda height: [Line(str(height))], 0.001, 2)
    assert terminal.getvalue().endswith(f"{screens._CLEAR}15\n{screens._CLEAR}15\n")


def test_watching(terminal: FakeTerminal) -> None:
    heights: list[int | None] = []

    def page(height: int | None) -> Any:
        heights.append(height)
        return [Line(f"page {len(heights)}")]

    file = io.StringIO()
    Screen(file).watch(page, 0.001, 3)
    assert file.getvalue() == "page 1\npage 2\npage 3\n"
    Screen(terminal).watch(page, 0.001, 2)
    assert heights == [None, None, None, 15, 15]
    assert "page 4" in terminal.getvalue()
    assert terminal.getvalue().count("\x1b[?1049h") == terminal.getvalue().count("\x1b[?1049l") == 1
