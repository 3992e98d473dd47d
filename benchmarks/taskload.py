"""A process that sends ordinary Celery tasks: ``python -m benchmarks.taskload ours``, or ``stock``.

It reads a JSON object a line, and answers with one a line. A fixed number of tasks is under way at any time. Each task
answers with a datagram, and the process then sends the next one. A missing, doubled or unknown answer is a failure.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

from benchmarks.frames import WrongAnswer
from benchmarks.windows import Window

#: Seconds after which a task without an answer counts as lost.
PATIENCE = 30.0


class TaskLoad:
    """A sender of tasks that counts their answers.

    Args:
        task: the Celery task; it gets the port for the answer, and a number to send there.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE)
        self.port: int = self.socket.getsockname()[1]
        self.begun: dict[int, float] = {}
        self.number = 0

    def once(self) -> dict[str, Any]:
        """Send one task, and wait until it has run."""
        self._send()
        return {"latency": self._hear()}

    def load(self, width: int, warm: float, seconds: float) -> dict[str, Any]:
        """Keep ``width`` tasks under way; count for ``seconds`` after ``warm``.

        Raises:
            WrongAnswer: an answer is missing, or belongs to no task under way.
        """
        latencies: list[float] = []
        window: Window | None = None
        begin = time.perf_counter()
        for _ in range(width):
            self._send()
        while (now := time.perf_counter()) < begin + warm + seconds:
            if window is None and now >= begin + warm:
                window, latencies = Window([]), []
            latencies.append(self._hear())
            self._send()
        if window is None:
            raise WrongAnswer(f"the first tasks took more than {warm + seconds:g} s")
        measured = window.end(latencies)
        while self.begun:
            self._hear()
        return measured

    def close(self) -> None:
        """Stop receiving answers."""
        self.socket.close()

    def _send(self) -> None:
        self.number += 1
        self.begun[self.number] = time.perf_counter()
        self.task.delay(self.port, self.number)

    def _hear(self) -> float:
        """Wait for the next answer; return its latency."""
        try:
            number = int.from_bytes(self.socket.recv(8), "big")
        except TimeoutError:
            raise WrongAnswer(f"{len(self.begun)} tasks did not answer within {PATIENCE:g} s") from None
        begun = self.begun.pop(number, None)
        if begun is None:
            raise WrongAnswer(f"task {number} answered twice")
        return time.perf_counter() - begun


def main() -> None:
    """Answer requests until standard input ends."""
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = f"benchmarks.sites.{sys.argv[1]}.settings"
    django.setup()
    from benchmarks.sites.tasks import answer

    load = TaskLoad(answer)
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = getattr(load, asked.pop("do"))(**asked)
        except Exception as error:
            said = {"error": str(error) if isinstance(error, WrongAnswer) else f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
