"""The measurements: a series of rounds for each contestant, and the failures."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

#: The contestant for all ratios: a worker of threads.
REFERENCE = "channelsq"


@dataclass
class Series:
    """The rounds of one contestant at one work.

    Attributes:
        part: ``echo``, ``fanout``, ...
        work: the name of the work, such as ``100 sockets``.
        contestant: the name of the contestant.
        metric: the name of the metric, with its unit.
        values: one a round.
    """

    part: str
    work: str
    contestant: str
    metric: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)


@dataclass
class Results:
    """All results of one run."""

    machine: dict[str, Any] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: Why rows were not measured, by their requirement: a server, an option of the worker.
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, part: str, work: str, contestant: str, metric: str, value: float) -> None:
        """Add the value of one more round."""
        found = self.find(part, work, contestant, metric)
        if found is None:
            found = Series(part, work, contestant, metric)
            self.series.append(found)
        found.values.append(value)

    def find(self, part: str, work: str, contestant: str, metric: str) -> Series | None:
        """Return the series, if there is one."""
        for each in self.series:
            if (each.part, each.work, each.contestant, each.metric) == (part, work, contestant, metric):
                return each
        return None

    def median(self, part: str, work: str, contestant: str, metric: str) -> float | None:
        """Return the median of a series, or None if it was not measured."""
        found = self.find(part, work, contestant, metric)
        return found.median if found else None
