"""The measured stacks of server processes, each with its own Redis."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import peers, proc
from benchmarks.frames import WrongAnswer
from benchmarks.programs import Program, Redis, Talk, environment, free_port
from benchmarks.services import Vhost
from channelsq.ipc.directory import default_directory

#: Celery pools, the pool of the demo's settings first.
POOLS = ("threads", "solo", "prefork")

#: The worker's options for the first.
THREADS = ("-P", "threads", "-c", "8")

#: Celery's brokers, the default of the benchmarks first, and their names in the tables.
BROKERS = {"streams": "redis-streams://", "redis": "redis://", "amqp": "RabbitMQ"}

#: Channel layers, the default of the benchmarks first, and their names in the tables.
LAYERS = {"streams": "Redis streams", "shards": "two Redis servers", "amqp": "RabbitMQ", "ipc": "IPC"}

#: uvicorn's WebSocket implementations.
WS = ("websockets", "websockets-sansio", "wsproto")

#: A higher limit of clients than a server's default.
FRONT = ("--max-connections", "50000")


class Stack:
    """A Redis, and the programs that use it."""

    name: str

    def __init__(self, logs: Path, name: str, env: Mapping[str, str]) -> None:
        self.name = name
        self.logs = logs
        self.port = free_port()
        self.redis = Redis(logs, name)
        self.programs: list[Program] = [self.redis]
        self.env = {"BENCH_REDIS": self.redis.url, **env}
        self.front: Program
        self._listens(self.redis, self.redis.port)

    def _listens(self, program: Program, port: int) -> None:
        """Wait until ``program`` listens; stop the stack and raise WrongAnswer if it does not."""
        try:
            program.wait_for_port(port)
        except WrongAnswer:
            self.stop()
            raise

    def _start(self, part: str, *args: str) -> Program:
        program = Program(args, self.logs / f"{self.name}-{part}.log", self.env)
        self.programs.append(program)
        return program

    def pids(self) -> list[int]:
        """Return all processes of the stack."""
        return [pid for program in self.programs for pid in program.pids()]

    def sender(self, which: str) -> Talk:
        """Return a separate process that sends; see :mod:`benchmarks.sender`."""
        return Talk(self._sender_args(which), self.env)

    def sender_command(self, which: str) -> dict[str, Any]:
        """Return the command of that process, for the load client."""
        return {"args": self._sender_args(which), "env": environment(self.env)}

    def _sender_args(self, which: str) -> list[str]:
        python = peers.PYTHON if which.startswith("peer") else sys.executable
        return [python, "-m", "benchmarks.sender", which]

    def settle(self, timeout: float = 20.0) -> None:
        """Wait until the stack has finished its work: it uses less than a tenth of a core.

        A stack that does not come to rest is measured as it is.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            begin = proc.cpu_seconds(self.pids())
            time.sleep(0.1)
            if proc.cpu_seconds(self.pids()) - begin <= 0.011:
                return

    def tails(self) -> str:
        """Return the ends of its programs' outputs."""
        return "\n".join(f"-- {program.log.name}\n{tail}" for program in self.programs if (tail := program.tail()))

    def stop(self) -> None:
        """Stop every process, Redis last."""
        for program in reversed(self.programs):
            program.stop()


@dataclass(frozen=True)
class Setup:
    """A way to run channelsq's worker.

    Attributes:
        name: the name of its logs.
        broker: Celery's broker, a key of ``BROKERS``.
        layer: the channel layer, a key of ``LAYERS``.
        worker: options of ``celery worker``.
        env: the environment of the programs; see ``sites/ours/settings.py``.
        events: whether ``celery events`` receives the worker's events.
        flower: whether Flower watches the worker.
    """

    name: str = "threads"
    broker: str = "streams"
    layer: str = "streams"
    worker: tuple[str, ...] = THREADS
    env: Mapping[str, str] = field(default_factory=dict)
    events: bool = False
    flower: bool = False


def pooled(pool: str, broker: str = "streams") -> Setup:
    """Return the setup of a Celery pool; ``prefork``, Celery's own default, is not passed to the worker."""
    options = {"threads": THREADS, "solo": ("-P", "solo"), "prefork": ()}
    return Setup(pool, broker, worker=options[pool])


class Working(Stack):
    """A stack with a Celery worker.

    Args:
        logs: the folder for the programs' output.
        name: the first part of the name of its logs, before the broker's name.
        setup: the way to run the worker.

    Attributes:
        site: the project in ``sites/``.
    """

    site: ClassVar[str]

    def __init__(self, logs: Path, name: str, setup: Setup) -> None:
        self.vhost = Vhost() if "amqp" in (setup.broker, setup.layer) else None
        self.setup = setup
        super().__init__(logs, f"{name}-{setup.broker}", setup.env)
        self.env["DJANGO_SETTINGS_MODULE"] = f"benchmarks.sites.{self.site}.settings"
        self.env["BENCH_CELERY_BROKER"] = self._broker_url()
        if setup.layer == "amqp" and self.vhost:
            self.env["BENCH_LAYER"] = self.vhost.url
        if setup.layer == "ipc":
            self.env["BENCH_LAYER"] = f"ipc://bench-{self.port}"
        if setup.layer == "shards":
            second = Redis(logs, f"{self.name}-second")
            self.programs.append(second)
            self._listens(second, second.port)
            self.env["BENCH_SECOND_REDIS"] = second.url
        self.worker = self._start("worker", *celery(self.site), "worker", *setup.worker)

    def _broker_url(self) -> str:
        if self.setup.broker == "amqp" and self.vhost:
            return self.vhost.url
        if self.setup.broker == "redis":
            return self.redis.url.removesuffix("/0") + "/1"
        return self.redis.url.replace("redis://", "redis-streams://")

    def tasks(self) -> Talk:
        """Return a separate process that sends tasks; see :mod:`benchmarks.taskload`."""
        return Talk([sys.executable, "-m", "benchmarks.taskload", self.site], self.env)

    def stop(self) -> None:
        """Stop every process, and delete the data in RabbitMQ."""
        super().stop()
        if self.vhost:
            self.vhost.delete()
        if self.setup.layer == "ipc":
            shutil.rmtree(default_directory(f"bench-{self.port}"), ignore_errors=True)


class Ours(Working):
    """One interface process and one worker process of channelsq.

    Args:
        logs: the folder for the programs' output.
        setup: the way to run the worker.

    Raises:
        Unavailable: Celery's broker is not on this machine.
        WrongAnswer: the interface server does not start.
    """

    site = "ours"

    def __init__(self, logs: Path, setup: Setup) -> None:
        super().__init__(logs, f"channelsq-{setup.name}", setup)
        if setup.events:
            self._start("events", *celery("ours"), "events", "--camera", "celery.events.snapshot.Polaroid")
        if setup.flower:
            port = free_port()
            flower = [*celery("ours"), "flower", "--address=127.0.0.1", f"--port={port}"]
            self._listens(self._start("flower", *flower), port)
        interface = [sys.executable, "-m", "channelsq.interface"]
        self.front = self._start("interface", *interface, *FRONT, "--port", str(self.port))
        self._listens(self.front, self.port)


class Stock(Working):
    """One Celery worker of a Django project without channelsq.

    Args:
        logs: the folder for the programs' output.
        setup: the way to run the worker; ``redis`` replaces ``streams``, which is channelsq's own.

    Raises:
        Unavailable: Celery's broker is not on this machine.
    """

    site = "stock"

    def __init__(self, logs: Path, setup: Setup) -> None:
        broker = "redis" if setup.broker == "streams" else setup.broker
        super().__init__(logs, f"celery-{setup.name}", replace(setup, broker=broker))


class Peer(Stack):
    """One uvicorn process with Channels 4, and Django's own ASGI handler.

    Args:
        logs: the folder for the programs' output.
        ws: uvicorn's WebSocket implementation.
        env: the environment of the programs; see ``sites/common.py``.
    """

    def __init__(self, logs: Path, ws: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__(logs, f"channels-{ws}", env or {})
        uvicorn = [peers.PYTHON, "-m", "uvicorn", "benchmarks.sites.peer.asgi:application"]
        options = ["--ws", ws, "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log"]
        self.front = self._start("uvicorn", *uvicorn, *options, "--port", str(self.port))
        self._listens(self.front, self.port)


def celery(site: str) -> list[str]:
    """Return the begin of a ``celery`` command of one of the projects in ``sites/``."""
    return [sys.executable, "-m", "celery", "-A", f"benchmarks.sites.{site}"]


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    Attributes:
        name: the name of the row.
        stack: its stack.
        path: the address of the echo, the room (with ``{group}`` in it) or the page.
        sender: the process that sends from outside.
    """

    name: str
    stack: Stack
    path: str
    sender: str = ""


def raise_limit() -> int:
    """Let this process, and its children, open as many files as allowed; return their number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
