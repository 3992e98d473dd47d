"""Libraries from npm, for pages of tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.needs import missing


def npm_packages(folder: Path, *packages: str) -> Path:
    """Install packages into a folder, and return the folder in which they are.

    Args:
        folder: an existing, empty one.
        packages: names with versions, such as ``"htmx.org@2.0.4"``.
    """
    if shutil.which("npm") is None:
        missing("no npm: install Node.js")
    (folder / "package.json").write_text('{"private": true}')
    done = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        missing(f"npm cannot install {', '.join(packages)}: {done.stdout[-500:]}")
    return folder / "node_modules"
