"""Assemble the npm package of the browser library in a temporary folder, and pack it into a folder, dist/ by default.

Runs in .venv (make npm).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "channelsq" / "static" / "channelsq" / "js"


def assemble(folder: Path) -> None:
    """Copy the files of the package into a folder."""
    package = json.loads((ROOT / "npm" / "package.json").read_text())
    for path in (ROOT / "npm" / "package.json", ROOT / "npm" / "README.md", ROOT / "LICENSE"):
        shutil.copy2(path, folder)
    for name in package["files"]:
        shutil.copy2(SCRIPTS / name, folder)


def main() -> None:
    """Pack the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", help="where to put it")
    target: Path = parser.parse_args().folder.resolve()
    if shutil.which("npm") is None:
        sys.exit("npm is missing: install Node.js")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        assemble(Path(folder))
        command = ["npm", "pack", "--silent", "--pack-destination", target]
        packed = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    print(target / packed.stdout.strip())


if __name__ == "__main__":
    main()
