"""Programs run as a user runs them, in processes of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.forked import Forked
from tests.support.forked import start as forked_start
from tests.support.ports import free_port, is_open
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

#: What the tester's own environment must not tell the programs.
_PRIVATE = (
    "ALLOWED_HOSTS", "BROKER_URL", "CSRF_TRUSTED_ORIGINS", "DATABASE_URL", "DEBUG", "DJANGO_SETTINGS_MODULE",
    "DYNO", "PORT", "REDIS_URL", "SECRET_KEY",
)  # fmt: skip

#: The environment of a user who has activated the virtual environment.
ACTIVATED = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))}


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what configures the project, and with ``env``."""
    inherited = {key: value for key, value in os.environ.items() if key not in _PRIVATE}
    return {**inherited, "PYTHONUNBUFFERED": "1", **(env or {})}


def pretending(folder: Path, name: str, version: str) -> dict[str, str]:
    """Return what to add to the environment, so that another version of a package seems to be installed.

    Args:
        folder: an existing one, for what says so.
    """
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


class Process:
    """A running program whose output goes to a file; stops with :meth:`stop`.

    Args:
        args: the command; ``"python"`` as its first word stands for this Python, and the programs that
            are installed beside it are found by their bare name.
        log: the file for its output (stdout and stderr).
        env: what is added to the environment.
        cwd: where it runs; the repository's root if left out.
    """

    def __init__(
        self,
        args: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.args = [str(arg) for arg in args]
        self.log = log
        self._stopping = False
        log.parent.mkdir(parents=True, exist_ok=True)
        bin_dir = Path(sys.executable).parent
        if self.args[0] == "python":
            self.args[0] = sys.executable
        elif (bin_dir / self.args[0]).exists():
            self.args[0] = str(bin_dir / self.args[0])
        log.write_bytes(b"")
        # gevent patches modules before others import them.
        is_plain = "gevent" in self.args or any(key.startswith("PYTHON") for key in env or ())
        self.popen = self._start(environment(env), cwd, is_plain=is_plain)

    def _start(self, env: Mapping[str, str], cwd: Path, *, is_plain: bool) -> subprocess.Popen[bytes] | Forked:
        """Start the program, by a fork server unless there is none for it, or its Python reads ``env``."""
        forked = None if is_plain else forked_start(self.args, self.log, env, cwd)
        if forked is not None:
            return forked
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.args,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children can be ended with it
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.popen.pid

    @property
    def output(self) -> str:
        """The output so far."""
        return self.log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """True if the process has not ended."""
        return self.popen.poll() is None

    def _fail(self, problem: str) -> AssertionError:
        return AssertionError(f"{' '.join(self.args)}\n{problem}; its output:\n{self.output}")

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
        """Wait until ``condition`` gives something true; AssertionError with the output if it never does."""

        def met() -> bool:
            if condition():
                return True
            if not self.running:
                raise self._fail(f"ended with code {self.popen.returncode} before {what}")
            return False

        try:
            wait_until(met, what, timeout)
        except AssertionError as error:
            raise (error if "its output" in str(error) else self._fail(f"no {what} in {timeout:g} s")) from None

    def wait_for_output(self, pattern: str, timeout: float = 30.0, after: int = 0) -> re.Match[str]:
        """Wait for a regular expression in the output (from position ``after`` on); gives its match."""
        found: list[re.Match[str]] = []

        def seen() -> bool:
            match = re.compile(pattern).search(self.output, after)
            if match:
                found.append(match)
            return bool(match)

        self.wait_for(seen, f"output like {pattern!r}", timeout)
        return found[0]

    def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Wait until something accepts connections on 127.0.0.1's ``port``."""
        self.wait_for(lambda: is_open(port), f"server on port {port}", timeout)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end; gives its exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._fail(f"still runs after {timeout:g} s") from None

    def signal(self, number: int) -> None:
        """Send it (not its children) a signal."""
        self.popen.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send it and its children a signal."""
        os.killpg(self.popen.pid, number)

    def terminate(self, timeout: float = 30.0) -> int:
        """SIGTERM, then wait for its end; gives its exit code, AssertionError if it hangs."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to it and its children, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def begin_stop(self) -> None:
        """SIGTERM, once, without waiting for what comes of it."""
        if self.running and not self._stopping:
            self._stopping = True
            self.popen.terminate()

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, and SIGKILL to whatever is left of it after ``timeout`` seconds."""
        self.begin_stop()
        if self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout)
        self.kill()


class Processes:
    """Starts the project's programs in a directory for logs, and stops what it started."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.started: list[Process] = []
        self._numbers = itertools.count(1)

    def start(self, *args: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Process:
        """Start any program."""
        name = re.sub(r"[^a-z0-9]+", "-", " ".join(args[:4]).lower()).strip("-")
        process = Process(args, self.logs / f"{next(self._numbers)}-{name}.log", env, cwd)
        self.started.append(process)
        return process

    def interface(
        self, *args: str, env: Mapping[str, str] | None = None, port: int | None = None
    ) -> tuple[Process, int]:
        """Start ``python -m channelsq.interface`` on a free port and wait until it listens."""
        port = port or free_port()
        process = self.start("python", "-m", "channelsq.interface", "--port", str(port), *args, env=env)
        process.wait_for_port(port)
        return process, port

    def worker(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        app: str = "app",
        loglevel: str = "INFO",
        waits: bool = True,
    ) -> Process:
        """Start ``celery -A app worker`` and wait until it is ready, which not every app says at ``WARNING``.

        At ``INFO`` and below, consumers are run by Celery's tracer, as its log lines are asked for.
        """
        process = self.start("celery", "-A", app, "worker", "--loglevel", loglevel, *args, env=env)
        if waits:
            process.wait_for_output(r"\bready\.", timeout=60)
        return process

    def runserver(
        self, *args: str, env: Mapping[str, str] | None = None, port: int | None = None
    ) -> tuple[Process, int]:
        """Start ``manage.py runserver`` on a free port and wait until it listens."""
        port = port or free_port()
        process = self.start("python", "manage.py", "runserver", str(port), *args, env=env)
        process.wait_for_port(port)
        return process, port

    def manage(self, *args: str, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> str:
        """Run ``manage.py`` to its end; gives its output, AssertionError if it fails."""
        process = self.start("python", "manage.py", *args, env=env)
        if process.wait(timeout):
            raise AssertionError(f"manage.py {' '.join(args)} failed:\n{process.output}")
        return process.output

    def stop(self) -> None:
        """Stop everything, all at once."""
        for process in self.started:
            process.begin_stop()
        for process in self.started:
            process.stop()

    def report(self) -> Iterator[tuple[str, str]]:
        """``(command, output)`` of everything that was started."""
        for process in self.started:
            yield " ".join(process.args), process.output
