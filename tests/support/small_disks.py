"""A file system of a few megabytes in memory, to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.processes import ROOT

#: Set for tests that run in a namespace of their own.
_INSIDE = "TEST_IN_NAMESPACE"


class SmallDisk:
    """A mounted tmpfs.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        """The free bytes."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Take all its space, as another program does."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert self.free == 0

    def make_room(self) -> None:
        """Give that space back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(request: pytest.FixtureRequest, folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one for the length of a block.

    A user who may not mount runs the test in a namespace where that is allowed.

    Args:
        request: the test's.
        folder: an empty directory.
        megabytes: its size.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        if _INSIDE in os.environ:
            pytest.fail(f"no tmpfs in a namespace: {mounted.stderr}")
        _run_in_namespace(request, mounted.stderr)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _run_in_namespace(request: pytest.FixtureRequest, reason: str) -> None:
    """Run the test in a user and mount namespace; skip it here if it passed there, or if there are none."""
    apart = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*apart, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        needs.missing(f"this user can neither mount a tmpfs ({reason.strip()}) nor do it with unshare ({error})")
    command = [*apart, sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, request.node.nodeid],
        cwd=ROOT,
        env={**os.environ, _INSIDE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pytest.skip("it was run in a mount namespace of its own, and passed there")
