"""States of channelsq that run side by side: the recorded previous one, and the one that is here."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.processes import ROOT

ROLLING = ROOT / "tests" / "rolling"


def previous_commit() -> str:
    """The recorded commit; ``$ROLLING_FROM`` names another."""
    given = os.environ.get("ROLLING_FROM")
    lines = (ROLLING / "previous.txt").read_text().splitlines()
    return given or next(line.strip() for line in lines if line.strip() and not line.startswith("#"))


@dataclass(frozen=True)
class State:
    """A state of channelsq with the rolling site beside it.

    Args:
        name: for people.
        directory: where its programs run.
    """

    name: str
    directory: Path

    @property
    def package(self) -> str:
        """The file that its programs import as channelsq."""
        return str(self.directory / "channelsq" / "__init__.py")

    @property
    def env(self) -> dict[str, str]:
        """The environment in which programs import it; with a PYTHONPATH they are started without the fork server."""
        return {"PYTHONPATH": str(self.directory), "DJANGO_SETTINGS_MODULE": "rolling_site.settings"}


def current(parent: Path) -> State:
    """The state that is here."""
    state = _with_site("new", parent)
    (state.directory / "channelsq").symlink_to(ROOT / "channelsq")
    return state


def previous(parent: Path) -> State:
    """The recorded state, out of git.

    The test is skipped where there is no whole history: an sdist, a shallow clone.  Where there is one without that
    commit, it fails in CI.
    """
    commit = previous_commit()
    try:
        shallow = _git("rev-parse", "--is-shallow-repository")
    except FileNotFoundError:
        pytest.skip("no git, which has the previous state of channelsq")
    archive = _git("archive", "--format=tar", commit, "channelsq")
    if archive.returncode:
        reason = f"git has no commit {commit}: {archive.stderr.decode().strip()}"
        if shallow.returncode or shallow.stdout.strip() == b"true":
            pytest.skip(f"{reason} (an sdist, or a shallow clone)")
        needs.missing(reason)
    state = _with_site("old", parent)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(state.directory, filter="data")
    return state


def _git(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=False)


def _with_site(name: str, parent: Path) -> State:
    directory = parent / name
    shutil.copytree(ROLLING / "rolling_site", directory / "rolling_site", ignore=shutil.ignore_patterns("__pycache__"))
    return State(name, directory)
