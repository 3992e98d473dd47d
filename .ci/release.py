"""Prepare a release: set the version everywhere, run every check, commit, tag, and build what is uploaded.

It uploads and pushes nothing: it prints these commands at the end.  Runs in .venv (make release VERSION=0.2.0).
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

VERSION = ROOT / "channelsq" / "version.py"
NPM = ROOT / "npm" / "package.json"
CHANGELOG = ROOT / "CHANGELOG.md"

#: A release, or one before a release: 0.2.0, 0.2.0rc1.
_FORM = re.compile(r"\d+\.\d+\.\d+(?:rc\d+)?")


def git(*args: str) -> str:
    """Run git in the repository; return its output."""
    return subprocess.run(["git", *args], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def replace(path: Path, pattern: str, new: str) -> None:
    """Replace the only match of a pattern in a file; end with an error if there is not one."""
    text, count = re.subn(pattern, new, path.read_text(), flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"{path.relative_to(ROOT)}: {pattern!r} is found {count} times, not once")
    path.write_text(text)


def check(version: str) -> None:
    """End with an error if this version cannot be released now."""
    if _FORM.fullmatch(version) is None:
        sys.exit(f"{version!r} is not a version: write it as 0.2.0 or 0.2.0rc1")
    if git("status", "--porcelain"):
        sys.exit("there are uncommitted changes: commit or stash them")
    if git("tag", "--list", f"v{version}"):
        sys.exit(f"the tag v{version} exists: choose another version")
    headings = re.findall(r"^## \[(.+)\] - (.+)$", CHANGELOG.read_text(), re.MULTILINE)
    if not headings or headings[0] != (version, "unreleased"):
        newest = " - ".join(headings[0]) if headings else "none"
        sys.exit(f"the newest entry of CHANGELOG.md is {newest}: it must be '## [{version}] - unreleased'")


def write(version: str, day: str) -> None:
    """Set the version and the day of the release."""
    replace(VERSION, r'^__version__ = ".*"$', f'__version__ = "{version}"')
    npm = version.replace("rc", "-rc.")
    replace(NPM, r'^  "version": ".*",$', f'  "version": "{npm}",')
    replace(CHANGELOG, rf"^## \[{re.escape(version)}\] - unreleased$", f"## [{version}] - {day}")


def main() -> None:
    """Prepare the release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--unchecked", action="store_true", help="leave out .ci/run, which takes 40 minutes")
    options = parser.parse_args()
    version: str = options.version
    check(version)
    write(version, datetime.datetime.now(tz=datetime.UTC).date().isoformat())
    if not options.unchecked:
        subprocess.run(["bash", ".ci/run"], cwd=ROOT, check=True)
    git("commit", "--all", "--message", f"Version {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"Version {version}")
    subprocess.run([sys.executable, "-m", "build", "--outdir", "dist"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, ".ci/npm.py", "dist"], cwd=ROOT, check=True)
    npm = version.replace("rc", "-rc.")
    print(f"\nVersion {version} is committed, tagged and built.  To publish it:\n")
    print(f"  git push --follow-tags\n  twine upload dist/channelsq-{version}*.whl dist/channelsq-{version}.tar.gz")
    print(f"  npm publish dist/channelsq-{npm}.tgz")


if __name__ == "__main__":
    main()
