"""The report for people: wrapped to the terminal's width, in colour only where the user wants it."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from channelsq.doctor.findings import Finding, Level
from channelsq.operations.screens import wants_colours

_COLOURS = {Level.ERROR: "31;1", Level.WARNING: "33;1", Level.OK: "32", Level.NOT_APPLICABLE: "2"}

_LABELS = {Level.ERROR: "error", Level.WARNING: "warning", Level.OK: "ok", Level.NOT_APPLICABLE: "n/a"}

#: Columns of a line: the least and largest number, and the width of the level.
_NARROWEST, _WIDEST, _LEVEL = 40, 120, 9


class Screen:
    """A screen that shows findings as they come.

    Args:
        out: a text stream.
        quiet: whether to show problems only.
    """

    def __init__(self, out: Any, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._colours = wants_colours(out)
        self._width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((100, 24)).columns))
        self._part: str | None = None

    def show(self, finding: Finding) -> None:
        """Write one finding, below the heading of its part."""
        if self._quiet and finding.level <= Level.OK:
            return
        part = "project and machine" if finding.layer is None else f"layer {finding.layer}"
        if part != self._part:
            self.say(f"\n{part}")
            self._part = part
        label = _LABELS[finding.level].ljust(_LEVEL)
        if self._colours:
            label = f"\033[{_COLOURS[finding.level]}m{label}\033[0m"
        first, *rest = self._wrapped(finding.text) or [""]
        self._out.write(f"  {label}{first}\n")
        lines = rest + (self._wrapped(f"fix: {finding.remedy}") if finding.remedy else [])
        for line in lines:
            self._out.write(f"{' ' * (_LEVEL + 2)}{line}\n")

    def say(self, text: str) -> None:
        """Write a line that belongs to no finding."""
        self._out.write(f"{text}\n")

    def _wrapped(self, text: str) -> list[str]:
        return textwrap.wrap(text, self._width - _LEVEL - 2, break_on_hyphens=False)
