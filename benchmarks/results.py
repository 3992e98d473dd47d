"""What was measured: a series of rounds for each contestant, and what failed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

#: The contestant that all ratios are of: a worker of threads.
REFERENCE = "channelsq"


@dataclass
class Series:
    """The rounds of one contestant at one work.

    Attributes:
        part: ``echo``, ``fanout``, ...
        work: what was done, such as ``100 sockets``.
        contestant: who did it.
        metric: what was measured, with its unit.
        values: one a round.
    """

    part: str
    work: str
    contestant: str
    metric: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)


@dataclass
class Results:
    """Everything of one run."""

    machine: dict[str, Any] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: Why rows were not measured, by what they need: a server, an option of the worker.
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, part: str, work: str, contestant: str, metric: str, value: float) -> None:
        """Note the value of one more round."""
        found = self.find(part, work, contestant, metric)
        if found is None:
            found = Series(part, work, contestant, metric)
            self.series.append(found)
        found.values.append(value)

    def find(self, part: str, work: str, contestant: str, metric: str) -> Series | None:
        """The series, if there is one."""
        for each in self.series:
            if (each.part, each.work, each.contestant, each.metric) == (part, work, contestant, metric):
                return each
        return None

    def median(self, part: str, work: str, contestant: str, metric: str) -> float | None:
        """Its median, or None if it was not measured."""
        found = self.find(part, work, contestant, metric)
        return found.median if found else None
