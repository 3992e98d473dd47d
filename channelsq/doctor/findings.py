"""Findings of the doctor, and their output as text, as JSON and as an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from channelsq.version import __version__

#: The version of the JSON; incremented when a field changes its meaning or is removed.
SCHEMA = 1


class Level(IntEnum):
    """The severity of a finding."""

    NOT_APPLICABLE = 0
    OK = 1
    WARNING = 2
    ERROR = 3

    @property
    def shown(self) -> str:
        """Its name in JSON and text."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Finding:
    """One result of an examination."""

    #: Its name for programs, such as ``"redis.version"``.
    check: str
    level: Level
    text: str
    #: The remedy; empty if there is nothing to do.
    remedy: str = ""
    #: The layer's alias; None for findings about no layer.
    layer: str | None = None
    #: Numbers and names for programs.
    data: Mapping[str, Any] = field(default_factory=dict)


def ok(check: str, text: str, layer: str | None = None, **data: Any) -> Finding:
    """Return a finding without a problem."""
    return Finding(check, Level.OK, text, "", layer, data)


def warning(check: str, text: str, remedy: str, layer: str | None = None, **data: Any) -> Finding:
    """Return a finding that an operator should know."""
    return Finding(check, Level.WARNING, text, remedy, layer, data)


def error(check: str, text: str, remedy: str, layer: str | None = None, **data: Any) -> Finding:
    """Return a finding that keeps the site from working."""
    return Finding(check, Level.ERROR, text, remedy, layer, data)


def not_applicable(check: str, text: str, layer: str | None = None) -> Finding:
    """Return a finding that the subject does not exist here."""
    return Finding(check, Level.NOT_APPLICABLE, text, "", layer)


def exit_code(findings: Iterable[Finding], fail_level: Level | None) -> int:
    """Return 1 if a finding has ``fail_level`` or more, else 0; None never fails."""
    return int(fail_level is not None and any(each.level >= fail_level for each in findings))


def as_json(findings: Iterable[Finding], fail_level: Level | None) -> str:
    """Return the report for programs; docs/how-to/run/operations.md describes its fields."""
    found = list(findings)
    worst = max((each.level for each in found), default=Level.OK)
    return json.dumps(
        {
            "schema": SCHEMA,
            "channelsq": __version__,
            "level": max(worst, Level.OK).shown,
            "failed": bool(exit_code(found, fail_level)),
            "findings": [
                {
                    "check": each.check,
                    "layer": each.layer,
                    "level": each.level.shown,
                    "text": each.text,
                    "remedy": each.remedy or None,
                    "data": dict(each.data),
                }
                for each in found
            ],
        },
        indent=2,
    )


def summary(findings: Iterable[Finding]) -> str:
    """Return the number of findings of each level, in words."""
    found = list(findings)
    counts = {level: sum(each.level == level for each in found) for level in Level}
    parts = [
        f"{counts[level]} {name}{'' if counts[level] == 1 else 's'}"
        for level, name in ((Level.ERROR, "error"), (Level.WARNING, "warning"))
    ]
    return f"{', '.join(parts)}, {counts[Level.OK]} ok, {counts[Level.NOT_APPLICABLE]} not applicable"
