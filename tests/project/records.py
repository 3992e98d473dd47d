"""Files in TEST_RECORDS by which consumers and views report to the tests, and by which tests let them go on."""

from __future__ import annotations

import os
import time
from pathlib import Path


def _file(name: str) -> Path | None:
    folder = os.environ.get("TEST_RECORDS")
    return Path(folder) / name if folder else None


def record(name: str, line: object) -> None:
    """Add a line to the record ``name``."""
    path = _file(name)
    if path is not None:
        with path.open("a") as file:
            file.write(f"{line}\n")


def recorded(name: str) -> list[str]:
    """Return the lines of the record ``name``."""
    path = _file(name)
    return path.read_text().splitlines() if path is not None and path.exists() else []


def wait_for_go(name: str, seconds: float = 30) -> bool:
    """Wait until a test has made the file ``name``; False if it has not in time."""
    path = _file(name)
    deadline = time.monotonic() + seconds
    while path is not None and time.monotonic() < deadline:
        if path.exists():
            return True
        time.sleep(0.01)
    return False
