"""The peers' virtual environment, ``.venv-peers`` beside the project's own, created if it is missing or old."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.programs import ROOT

VENV = ROOT / ".venv-peers"
PYTHON = str(VENV / "bin" / "python")
REQUIREMENTS = Path(__file__).with_name("peers.txt")


def make() -> None:
    """Create it, with this Python, unless it is up to date.

    Raises:
        SystemExit: pip failed.
    """
    stamp = VENV / ".ready"
    wanted = sys.version + REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Setting up {VENV.name} with {', '.join(_pins())} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    (VENV / ".gitignore").write_text("*\n")
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    if subprocess.run(pip, check=False).returncode:
        raise SystemExit(f"benchmarks: pip could not install {REQUIREMENTS}")
    stamp.write_text(wanted)


def _pins() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line]


def versions(python: str, names: list[str]) -> dict[str, str]:
    """Return the installed versions of these packages beside ``python``."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass"
    )
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())
