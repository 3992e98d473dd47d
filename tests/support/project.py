"""The test project, served by an interface server: with its worker inside, or apart on a broker."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from tests.support.demo import QUICK
from tests.support.metrics import Metrics
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until


class Project:
    """The test project's processes and records.

    Args:
        directory: an existing, empty one.
        redis_url: the broker and the groups; without it the worker is inside the interface server.
        env: more environment for every process.
    """

    def __init__(self, directory: Path, redis_url: str | None = None, env: Mapping[str, str] | None = None) -> None:
        self.records = directory / "records"
        self.records.mkdir()
        self.processes = Processes(directory / "logs")
        self.port = free_port()
        self.env = {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "TEST_DATABASE": str(directory / "db.sqlite3"),
            "TEST_RECORDS": str(self.records),
            **({"TEST_BROKER": redis_url, "TEST_GROUPS": redis_url} if redis_url else {}),
            **(env or {}),
        }
        self.embedded = redis_url is None
        self._numbers = itertools.count()
        self.interface: Process
        self.worker: Process

    @property
    def url(self) -> str:
        """The URL of the interface server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    def migrate(self) -> None:
        """Make the database's tables."""
        self.processes.manage("migrate", "--run-syncdb", "--verbosity", "0", env=self.env)

    def start(self, *args: str) -> None:
        """Start interface server and, unless it is inside, worker."""
        self.start_interface(*args)
        if not self.embedded:
            self.start_worker()

    def start_interface(self, *args: str) -> None:
        """Start the interface server."""
        self.interface, _ = self.processes.interface("--access-log", *args, env=self.env, port=self.port)

    def start_worker(self, *args: str, waits: bool = True) -> None:
        """Start a worker."""
        self.worker = self.new_worker(*args, waits=waits)

    def new_worker(self, *args: str, waits: bool = True) -> Process:
        """Start one more worker, and wait until it is ready.  Its pool is threads if no other is given: those of
        the worker itself run its consumers then, and it starts and ends sooner than one with processes.
        """
        name = f"{self.port}-{next(self._numbers)}@%h"
        if "-P" not in args:
            args = ("-P", "threads", *args)
        return self.processes.worker(
            "-n", name, *QUICK, *args, env=self.env, app="tests.project", loglevel="WARNING", waits=waits
        )

    @property
    def worker_output(self) -> str:
        """The output of the worker, also of one inside the interface server."""
        return (self.interface if self.embedded else self.worker).output

    def recorded(self, name: str) -> list[str]:
        """The lines of a record."""
        path = self.records / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_record(self, name: str, line: str, timeout: float = 15.0) -> None:
        """Wait until a record has ``line``."""
        wait_until(lambda: line in self.recorded(name), f"{line!r} in the record {name}", timeout)

    def counted(self, name: str, **labels: str) -> float:
        """A metric of the interface server, started with ``--metrics``; see :class:`tests.support.metrics.Metrics`."""
        return Metrics(self.url)(name, **labels)

    def let_go(self, name: str) -> None:
        """Let a view go on that waits for ``name``."""
        (self.records / f"{name}.go").touch()

    def stop(self) -> None:
        """Stop every process."""
        self.processes.stop()
