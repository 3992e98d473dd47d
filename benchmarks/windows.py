"""The time window of a measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.frames import WrongAnswer
from benchmarks.proc import cpu_seconds


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value of a sorted sequence below which ``share`` (0 to 1) of it lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Window:
    """A window that begins when it is created; it counts the processor time of ``pids`` and of this process.

    Args:
        pids: the servers' processes.
    """

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.cpu = cpu_seconds(pids)
        self.client = time.process_time()
        self.begin = time.perf_counter()

    def end(self, latencies: list[float]) -> dict[str, Any]:
        """Return the measurement, given each answer's latency (in seconds) in any order.

        Returns:
            ``count``; ``rate`` (a second); ``p50`` and ``p99`` in ms; ``cpu``, processor time an answer in us;
            ``client``, the load client's share of one core.

        Raises:
            WrongAnswer: there was no answer.
        """
        seconds = time.perf_counter() - self.begin
        cpu = cpu_seconds(self.pids) - self.cpu
        client = time.process_time() - self.client
        ordered = sorted(latencies)
        count = len(ordered)
        if not count:
            raise WrongAnswer(f"nothing was answered within {seconds:.1f} s")
        return {
            "count": count,
            "rate": count / seconds,
            "p50": percentile(ordered, 0.5) * 1e3,
            "p99": percentile(ordered, 0.99) * 1e3,
            "cpu": cpu / count * 1e6,
            "client": client / seconds,
        }
