"""The script that prepares a release, in a clone of the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from channelsq import __version__
from tests.support.needs import missing
from tests.support.processes import ROOT

pytestmark = [pytest.mark.timeout(180), pytest.mark.ways("other ways")]


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the present files."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("no git repository")
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).stdout.splitlines()
    folder = tmp_path / "clone"
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for command in (
        ["init", "--quiet"],
        ["config", "user.name", "A Maintainer"],
        ["config", "user.email", "maintainer@example.com"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "Everything"],
    ):
        done = run("git", *command, cwd=folder)
        assert done.returncode == 0, done.stdout
    return folder


def release(clone: Path, version: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ".ci/release.py", version, "--unchecked", cwd=clone)


def commit(clone: Path, old: str, new: str) -> None:
    """Change the changelog, and commit that."""
    path = clone / "CHANGELOG.md"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert run("git", "commit", "--quiet", "--all", "--message", "Changelog", cwd=clone).returncode == 0


def test_a_release_is_committed_tagged_and_built(clone: Path) -> None:
    if shutil.which("npm") is None:
        missing("no npm: install Node.js")
    commit(clone, "## [", "## [9.8.0rc1] - unreleased\n\n- New.\n\n## [")
    done = release(clone, "9.8.0rc1")
    assert done.returncode == 0, done.stdout
    assert '__version__ = "9.8.0rc1"' in (clone / "channelsq" / "version.py").read_text()
    assert json.loads((clone / "npm" / "package.json").read_text())["version"] == "9.8.0-rc.1"
    assert "## [9.8.0rc1] - 2" in (clone / "CHANGELOG.md").read_text()
    assert run("git", "status", "--porcelain", cwd=clone).stdout == ""
    assert run("git", "describe", cwd=clone).stdout.strip() == "v9.8.0rc1"
    names = {path.name for path in (clone / "dist").iterdir()}
    assert names == {
        "channelsq-9.8.0rc1-py3-none-any.whl",
        "channelsq-9.8.0rc1.tar.gz",
        "channelsq-9.8.0-rc.1.tgz",
    }
    for name in names:
        assert name.removesuffix("-py3-none-any.whl") in done.stdout
    again = release(clone, "9.8.0rc1")
    assert again.returncode == 1
    assert "the tag v9.8.0rc1 exists" in again.stdout


def test_what_is_not_ready_is_not_released(clone: Path) -> None:
    before = run("git", "rev-parse", "HEAD", cwd=clone).stdout
    for version, text in (
        ("1.0", "'1.0' is not a version"),
        ("9.9.9", f"the newest entry of CHANGELOG.md is {__version__} - "),
    ):
        done = release(clone, version)
        assert done.returncode == 1
        assert text in done.stdout
    (clone / "new.txt").write_text("")
    assert "uncommitted changes" in release(clone, "9.9.9").stdout
    assert run("git", "rev-parse", "HEAD", cwd=clone).stdout == before
    assert run("git", "tag", cwd=clone).stdout == ""
