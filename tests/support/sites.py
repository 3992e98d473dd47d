"""The project of two layers (tests/layers_project), its processes and its clients."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.demo import QUICK
from tests.support.processes import Process, Processes


class Site:
    """The project of two layers.

    Args:
        layers: ``CHANNEL_LAYERS`` without ``ROUTING``.
    """

    def __init__(self, layers: Mapping[str, Any], logs: Path, **env: str) -> None:
        self.processes = Processes(logs)
        self.env = {
            "DJANGO_SETTINGS_MODULE": "tests.layers_project.settings",
            "TEST_LAYERS": json.dumps(layers),
            **env,
        }

    def interface(self, *args: str) -> tuple[Process, str]:
        """An interface server, and its URL for WebSockets."""
        process, port = self.processes.interface(*args, env=self.env)
        return process, f"ws://127.0.0.1:{port}/"

    def worker(self, *args: str) -> Process:
        """A Celery worker; its own threads run consumers if no other pool than threads is given."""
        name = f"{secrets.token_hex(4)}@%h"
        if "-P" not in args:
            args = ("-P", "threads", *args)
        return self.processes.worker(
            "-n", name, *QUICK, *args, env=self.env, app="tests.layers_project", loglevel="WARNING"
        )

    def manage(self, *args: str) -> Process:
        """A command that is left running."""
        return self.processes.start("python", "-m", "tests.layers_project.manage", *args, env=self.env)

    def run(self, *args: str) -> str:
        """A command to its end; gives its output."""
        process = self.manage(*args)
        assert process.wait(60) == 0, process.output
        return process.output


@contextlib.contextmanager
def socket_on(url: str) -> Iterator[ClientConnection]:
    with connect(url, open_timeout=30, close_timeout=5) as socket:
        yield socket


def ask(socket: ClientConnection, text: str) -> str:
    socket.send(text)
    return str(socket.recv(timeout=30))


def is_by(answer: str, worker: Process) -> bool:
    """Return whether an answer, which ends with a process's id, is by a worker or by a channel process of it."""
    pid = int(answer.rpartition(" ")[2])
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return worker.pid in (pid, int(parent))
