"""Counters of one interface server, by name."""

from __future__ import annotations

from collections import Counter


class Stats:
    """What happened so far: ``stats.count("websocket.slow_clients")``, then ``stats.as_dict()``.

    Counted in the event loop, except for what :mod:`channelsq.interface.replies` counts under its lock.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, name: str, by: int = 1) -> None:
        """Add ``by`` to the counter ``name``."""
        self._counts[name] += by

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def as_dict(self) -> dict[str, int]:
        """Every counter that is not 0."""
        return dict(self._counts)
