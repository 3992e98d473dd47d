"""The versions of libraries, which tests of what differs between them look at."""

from __future__ import annotations

from importlib.metadata import version

from packaging.version import Version


def release(package: str) -> tuple[int, ...]:
    """Return an installed package's version, such as ``(5, 6, 2)``."""
    return Version(version(package)).release
