"""A RabbitMQ of the tests' own, which may be stopped, frozen and made short of memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.support import needs
from tests.support.ports import free_port, is_open
from tests.support.processes import Process

#: Where Debian keeps the programs that anybody may run; those on the PATH are for root and the service's user.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")


class RabbitServer:
    """A node of RabbitMQ on 127.0.0.1.

    Args:
        directory: an existing, empty one, for its data and logs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.process: Process | None = None
        self._starts = 0
        epmd = free_port()  # Erlang's own name server: one that ends with the node
        self.env = {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "environment"),
        }
        (directory / "plugins").write_text("[].\n")
        (directory / "rabbitmq.conf").touch()
        (directory / "environment").touch()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start it, with the data that it has, and wait until it takes connections."""
        self._starts += 1
        program = _program("rabbitmq-server")
        self.process = Process([program], self.directory / f"rabbitmq-{self._starts}.log", self.env)
        self.process.wait_for(lambda: is_open(self.port), "connections to RabbitMQ", 90)
        self.process.wait_for_output("completed with", 90)

    def control(self, *args: str) -> str:
        """Run ``rabbitmqctl``; gives its output, AssertionError if it fails."""
        done = subprocess.run(
            [_program("rabbitmqctl"), "--quiet", *args],
            env={**os.environ, **self.env}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pause(self) -> None:
        """Have it stand still (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.running:
            os.killpg(self.process.pid, number)  # a shell, and Erlang

    def alarm(self, *, on: bool) -> None:
        """Have it be short of memory, or not any more: meanwhile it takes no messages."""
        self.control("set_vm_memory_high_watermark", "0.00001" if on else "0.6")

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.kill()
            self.process = None
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run([epmd, "-kill"], env={**os.environ, **self.env}, capture_output=True, check=False)


def _program(name: str) -> str:
    found = str(_PROGRAMS / name) if (_PROGRAMS / name).exists() else shutil.which(name)
    if found is None:
        needs.missing(f"no {name}: apt install rabbitmq-server")
    return found
