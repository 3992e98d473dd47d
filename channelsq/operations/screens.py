"""Output of pages: as text that other programs can read, and with ``rich`` on terminals."""

from __future__ import annotations

import itertools
import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from channelsq.operations.tables import GAP, Line, Page, Table, fitted

#: The codes that clear a terminal.
_CLEAR = "\033[H\033[2J\033[3J"


def is_terminal(out: Any) -> bool:
    """Return whether a stream is a terminal with more abilities than writing lines."""
    return bool(getattr(out, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"


def wants_colours(out: Any) -> bool:
    """Return whether a stream is a terminal whose user wants colours (https://no-color.org)."""
    return is_terminal(out) and not os.environ.get("NO_COLOR")


def width_of(out: Any) -> int | None:
    """Return the width of a terminal; None for a file or a pipe, whose lines may be of any length."""
    return max(20, shutil.get_terminal_size().columns) if is_terminal(out) else None


def text_of(page: Page, width: int | None) -> str:
    """Return a page as text, in lines of at most ``width`` characters; None for any length."""
    blocks = []
    for number, block in enumerate(page):
        if isinstance(block, Line):
            lines = [block.text] if width is None else textwrap.wrap(block.text, width, break_on_hyphens=False)
        else:
            table = fitted(block, width)
            rows = [[column.title for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
            lines = [_joined(table, row) for row in rows]
        blocks += ["", *lines] if _stands_apart(page, number) else lines
    return "\n".join(blocks)


def _stands_apart(page: Page, number: int) -> bool:
    """Return whether a block has an empty line above it."""
    block = page[number]
    return number > 0 and (isinstance(block, Table) or block.apart)


def _joined(table: Table, row: list[str]) -> str:
    cells = [
        text.rjust(width) if column.right else text.ljust(width)
        for text, width, column in zip(row, table.widths, table.columns, strict=True)
    ]
    return (" " * GAP).join(cells).rstrip()


def moments(every: float, count: int | None) -> Iterator[None]:
    """Yield ``count`` times, None for no end, with ``every`` seconds in between."""
    for number in itertools.count(1):
        yield
        if number == count:
            return
        time.sleep(every)


class Screen:
    """A screen that shows pages, once or repeatedly.

    Args:
        out: a text stream.
    """

    def __init__(self, out: Any) -> None:
        self._out = out
        self._rich = _rich_console(out) if wants_colours(out) else None

    def show(self, page: Page) -> None:
        """Show a page."""
        if self._rich is not None:
            self._rich.print(_renderable(page, self._rich.width))
        else:
            self._out.write(text_of(page, width_of(self._out)) + "\n")

    def watch(self, pages: Callable[[int | None], Page], every: float, count: int | None) -> None:
        """Show pages ``count`` times, or until the user ends it; None for no limit.

        Args:
            pages: makes the next page for the terminal's number of lines; None for any number.
            every: seconds between two pages.
        """
        with self._updated() as update:
            for _ in moments(every, count):
                update(pages(shutil.get_terminal_size().lines if is_terminal(self._out) else None))

    @contextmanager
    def _updated(self) -> Iterator[Callable[[Page], None]]:
        if self._rich is not None:
            from rich.live import Live

            console = self._rich
            with Live(console=console, screen=True, auto_refresh=False) as live:
                yield lambda page: live.update(_renderable(page, console.width), refresh=True)
        elif is_terminal(self._out):
            yield lambda page: self._show_again(page)
        else:
            yield self.show

    def _show_again(self, page: Page) -> None:
        self._out.write(_CLEAR)
        self.show(page)


# -- rich -------------------------------------------------------------------------------------------

_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "dim": "dim", "head": "bold cyan", "": ""}


def _rich_console(out: Any) -> Any:
    """Return a console of rich; None if it is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    stream = getattr(out, "_out", out)  # Django wraps it
    return Console(file=stream, force_terminal=True, highlight=False, width=width_of(out))


def _renderable(page: Page, width: int) -> Any:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[Any] = []
    for number, block in enumerate(page):
        if _stands_apart(page, number):
            parts.append(Text(""))
        if isinstance(block, Line):
            parts.append(Text(block.text, style=_STYLES[block.style]))
            continue
        table = fitted(block, width)
        drawn = RichTable(box=None, padding=(0, GAP, 0, 0), header_style="bold", pad_edge=False)
        for column in table.columns:
            drawn.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
        for row in table.rows:
            drawn.add_row(*(Text(cell.text, style=_STYLES[cell.style]) for cell in row))
        parts.append(drawn)
    return Group(*parts)
