"""What is measured: each a stack of server processes with a Redis of its own."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers, proc
from benchmarks.programs import Program, Redis, Talk, environment, free_port

#: Celery pools, the shipped default first.
POOLS = ("threads", "solo", "prefork")

#: uvicorn's WebSocket implementations.
WS = ("websockets", "websockets-sansio", "wsproto")

#: More clients than a server takes unless it is told to.
FRONT = ("--max-connections", "50000")


class Stack:
    """Servers that answer on one port."""

    name: str

    def __init__(self, logs: Path, name: str) -> None:
        self.name = name
        self.logs = logs
        self.port = free_port()
        self.redis = Redis(logs, name)
        self.programs: list[Program] = [self.redis]
        self.env = {"BENCH_REDIS": self.redis.url}
        self.front: Program
        self.redis.wait_for_port(self.redis.port)

    def _start(self, part: str, *args: str) -> Program:
        program = Program(args, self.logs / f"{self.name}-{part}.log", self.env)
        self.programs.append(program)
        return program

    def pids(self) -> list[int]:
        """Every process of it."""
        return [pid for program in self.programs for pid in program.pids()]

    def sender(self, which: str) -> Talk:
        """A process besides the servers that sends; see :mod:`benchmarks.sender`."""
        return Talk(self._sender_args(which), self.env)

    def sender_command(self, which: str) -> dict[str, Any]:
        """The same for the load client to start."""
        return {"args": self._sender_args(which), "env": environment(self.env)}

    def _sender_args(self, which: str) -> list[str]:
        python = peers.PYTHON if which.startswith("peer") else sys.executable
        return [python, "-m", "benchmarks.sender", which]

    def settle(self, timeout: float = 20.0) -> None:
        """Wait until it has finished what it was given: it uses less than a tenth of a core.

        What does not come to rest goes on to be measured as it is.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            begin = proc.cpu_seconds(self.pids())
            time.sleep(0.1)
            if proc.cpu_seconds(self.pids()) - begin <= 0.011:
                return

    def tails(self) -> str:
        """The ends of what its programs have written."""
        return "\n".join(f"-- {program.log.name}\n{tail}" for program in self.programs if (tail := program.tail()))

    def stop(self) -> None:
        """Stop every process, Redis last."""
        for program in reversed(self.programs):
            program.stop()


class Ours(Stack):
    """One interface process and one worker process of channelsq.

    Args:
        logs: the folder for the programs' output.
        pool: the worker's Celery pool; ``threads`` is the shipped default and is not named to it.
    """

    def __init__(self, logs: Path, pool: str = "threads") -> None:
        super().__init__(logs, f"channelsq-{pool}")
        self.env["DJANGO_SETTINGS_MODULE"] = "benchmarks.sites.ours.settings"
        python = sys.executable
        chosen = [] if pool == POOLS[0] else ["-P", pool, "--prefetch-multiplier", "32"]
        self.worker = self._start("worker", python, "-m", "celery", "-A", "benchmarks.sites.ours", "worker", *chosen)
        self.front = self._start("interface", python, "-m", "channelsq.interface", *FRONT, "--port", str(self.port))
        self.front.wait_for_port(self.port)


class Peer(Stack):
    """One uvicorn process with Channels 4, and Django's own ASGI handler.

    Args:
        logs: the folder for the programs' output.
        ws: uvicorn's WebSocket implementation.
    """

    def __init__(self, logs: Path, ws: str) -> None:
        super().__init__(logs, f"channels-{ws}")
        uvicorn = [peers.PYTHON, "-m", "uvicorn", "benchmarks.sites.peer.asgi:application"]
        options = ["--ws", ws, "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log"]
        self.front = self._start("uvicorn", *uvicorn, *options, "--port", str(self.port))
        self.front.wait_for_port(self.port)


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    Attributes:
        name: what the row is called.
        stack: where it runs.
        path: the address of the echo, the room (with ``{group}`` in it) or the page.
        sender: which process sends from outside.
    """

    name: str
    stack: Stack
    path: str
    sender: str = ""


def raise_limit() -> int:
    """Let this process, and what it starts, open as many files as it may; gives how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
