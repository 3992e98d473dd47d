"""Tables that fit a terminal's width, and pages of them, independent of their output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

#: The meaning of a cell or line; colours follow it.
Style = Literal["", "good", "warn", "bad", "dim", "head"]

_Item = TypeVar("_Item")

#: Columns between two cells.
GAP = 2

#: The smallest width of a cut cell.
_NARROWEST = 4


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    #: Whether it contains numbers.
    right: bool = False
    #: Without room, columns of a higher rank are left out first; those of rank 0 stay.
    rank: int = 0


@dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str
    style: Style = ""


@dataclass(frozen=True)
class Line:
    """A line of text on a page."""

    text: str
    style: Style = ""
    #: Whether an empty line precedes it.
    apart: bool = False


@dataclass(frozen=True)
class Table:
    """A table on a page."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def widths(self) -> list[int]:
        """The width of each column."""
        return [
            max([len(column.title), *(len(row[number].text) for row in self.rows)])
            for number, column in enumerate(self.columns)
        ]


#: The content of a screen.
Page = Sequence[Line | Table]


def fitted(table: Table, width: int | None) -> Table:
    """Return a table with columns left out, and then texts cut, until it fits ``width``; None for any width."""
    if width is None:
        return table
    while _total(table) > width:
        ranks = [column.rank for column in table.columns]
        if not any(ranks):
            return _cut(table, width)
        # The last of the least important ones.
        left_out = max(range(len(ranks)), key=lambda number: (ranks[number], number))
        table = Table(_without(table.columns, left_out), [_without(row, left_out) for row in table.rows])
    return table


def _without(items: Sequence[_Item], number: int) -> list[_Item]:
    return [*items[:number], *items[number + 1 :]]


def _total(table: Table) -> int:
    return sum(table.widths) + GAP * (len(table.columns) - 1)


def _cut(table: Table, width: int) -> Table:
    """Cut the widest column repeatedly."""
    widths = table.widths
    while sum(widths) + GAP * (len(widths) - 1) > width and max(widths) > _NARROWEST:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    columns = [
        Column(shortened(column.title, limit), column.right)
        for column, limit in zip(table.columns, widths, strict=True)
    ]
    rows = [
        [Cell(shortened(cell.text, limit), cell.style) for cell, limit in zip(row, widths, strict=True)]
        for row in table.rows
    ]
    return Table(columns, rows)


def shortened(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters; ``~`` marks a cut."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}~"
