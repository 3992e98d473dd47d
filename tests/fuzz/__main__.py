"""Fuzzes each target for a while: ``make fuzz``, or ``python -m tests.fuzz [--seconds N] [target ...]``.

What makes a target fail is left in ``.fuzz/``, as crash-..., and belongs into tests/fuzz/finds/ with a fix; there, too,
the corpus grows from run to run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.seeds import SEEDS

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-fuzz"
PYTHON = VENV / "bin" / "python"
WORK = ROOT / ".fuzz"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def install() -> None:
    """Make ``.venv-fuzz``, with this Python, unless it is up to date.

    Raises:
        SystemExit: pip failed.
    """
    stamp = VENV / ".ready"
    wanted = sys.version + _REQUIREMENTS.read_text() + (ROOT / "pyproject.toml").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
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
        "-e",
        ROOT,
    ]
    if subprocess.run(pip, check=False).returncode:
        raise SystemExit(f"fuzz: pip could not install {_REQUIREMENTS}")
    stamp.write_text(wanted)


def main() -> int:
    """Fuzz; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what comes from outside.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"{', '.join(SEEDS)} (all)")
    given = parser.parse_args()
    unknown = set(given.targets) - SEEDS.keys()
    if unknown:
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    install()
    failed = []
    for name in given.targets or SEEDS:
        corpus = WORK / name
        corpus.mkdir(parents=True, exist_ok=True)
        (WORK / ".gitignore").write_text("*\n")
        for number, seed in enumerate(SEEDS[name]()):
            (corpus / f"seed-{number}").write_bytes(seed)
        print(f"\n== {name}, {given.seconds} s", flush=True)
        command = [
            PYTHON, "-m", "tests.fuzz.fuzz", name, str(corpus), f"-max_total_time={given.seconds}", "-timeout=10",
            "-rss_limit_mb=1024", "-max_len=4096", f"-artifact_prefix={WORK}/{name}-", "-print_final_stats=1",
        ]  # fmt: skip
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nnothing was found")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
