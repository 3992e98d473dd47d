"""Starts what the cases are run against, runs them, and reads what came of it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.demo import QUICK
from tests.support.processes import ROOT, Processes
from tests.support.servers import redis_binary, running_redis

VENV = ROOT / ".venv-autobahn"
PYTHON = VENV / "bin" / "python"
_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.txt"

#: The largest message has 16 MiB; and the suite measures how fast a server is, so nothing is to slow it down.
_OPTIONS = ("--max-message-size", "16m", "--max-message-rate", "0", "--max-byte-rate", "0")

#: What the suite calls right: NON-STRICT is right, if not as it would have it; INFORMATIONAL cases have no right.
PASSING = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})

_GROUPS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing",
    "9": "Limits and performance",
    "10": "Auto-fragmentation",
    "12": "Compression, payloads",
    "13": "Compression, parameters",
}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one case."""

    id: str
    behavior: str
    close: str
    text: str
    seconds: float

    @property
    def passed(self) -> bool:
        """True if the server did nothing wrong, and closed as it should."""
        return self.behavior in PASSING and self.close in PASSING


def installed() -> bool:
    """Return whether the cases are there in the wanted version."""
    stamp = VENV / ".ready"
    return stamp.exists() and stamp.read_text() == _wanted()


def install() -> None:
    """Make ``.venv-autobahn``, with this Python, unless it is up to date.

    Raises:
        SystemExit: pip failed.
    """
    if installed():
        return
    print(f"Setting up {VENV.name} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    (VENV / ".gitignore").write_text("*\n")
    pip: list[str | Path] = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        _REQUIREMENTS,
    ]
    if subprocess.run(pip, check=False).returncode:
        raise SystemExit(f"autobahn: pip could not install {_REQUIREMENTS}")
    (VENV / ".ready").write_text(_wanted())


def _wanted() -> str:
    return sys.version + _REQUIREMENTS.read_text()


@contextlib.contextmanager
def whole_stack(directory: Path) -> Iterator[str]:
    """Interface server, Redis and worker, each a process of its own; gives the WebSocket URL."""
    if redis_binary() is None:
        raise SystemExit("autobahn: there is neither redis-server nor valkey-server on the PATH")
    with running_redis(directory) as redis, _site(directory, redis.url) as url:
        yield url


@contextlib.contextmanager
def interface_alone(directory: Path) -> Iterator[str]:
    """One process, on the layer in memory: no wire but the client's; gives the WebSocket URL."""
    with _site(directory, None) as url:
        yield url


@contextlib.contextmanager
def _site(directory: Path, redis_url: str | None) -> Iterator[str]:
    env = {"DJANGO_SETTINGS_MODULE": "tests.autobahn.site.settings"}
    if redis_url:
        env["AUTOBAHN_REDIS"] = redis_url
    processes = Processes(directory / "logs")
    try:
        interface, port = processes.interface(*_OPTIONS, env=env)
        if redis_url:
            processes.worker(*QUICK, env=env, app="tests.autobahn.site")
        yield f"ws://127.0.0.1:{port}/"
        if "Traceback" in interface.output:
            raise AssertionError(f"the interface server failed:\n{interface.output}")
    finally:
        processes.stop()


def run(url: str, directory: Path, patterns: Sequence[str], *, show: bool = False) -> list[Result]:
    """Run the cases that ``patterns`` name (``-`` before one leaves out) one after another.

    Raises:
        AssertionError: the client failed.
    """
    results = directory / "results.json"
    output = None if show else subprocess.PIPE
    done = subprocess.run(
        [PYTHON, _HERE / "client.py", url, results, *patterns],
        stdout=output, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"the client ended with {done.returncode}:\n{done.stdout}"
    return [
        Result(name, each["behavior"], each["behaviorClose"], each["result"], each.get("seconds", 0.0))
        for name, each in json.loads(results.read_text()).items()
    ]


def table(results: Sequence[Result]) -> str:
    """Return the numbers of cases of each group by result, in Markdown."""
    kinds = [*sorted(PASSING), *sorted({each.behavior for each in results} - PASSING)]
    kinds = ["OK", "NON-STRICT", "INFORMATIONAL", *(kind for kind in kinds if kind not in PASSING)]
    lines = [f"| group | cases | {' | '.join(kinds)} | closed wrongly |", "| --- |" + " --- |" * (len(kinds) + 2)]
    for number, title in _GROUPS.items():
        group = [each for each in results if each.id.startswith(f"{number}.")]
        if group:
            lines.append(f"| {number} {title} {_counts(group, kinds)}")
    lines.append(f"| all {_counts(results, kinds)}")
    return "\n".join(lines)


def _counts(results: Sequence[Result], kinds: Sequence[str]) -> str:
    found = Counter(each.behavior for each in results)
    wrongly = sum(each.close not in PASSING for each in results)
    return f"| {len(results)} | {' | '.join(str(found[kind]) for kind in kinds)} | {wrongly} |"


def notable(results: Sequence[Result]) -> list[str]:
    """A line for each case that is not plainly OK."""
    return [
        f"{each.id}: {each.behavior}, close {each.close}: {re.sub(r'<[^>]*>', ' ', each.text)}"
        for each in results
        if each.behavior != "OK" or not each.passed
    ]
