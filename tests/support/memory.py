"""The memory of a process, on Linux."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells of a process's memory")


def peak(pid: int) -> int:
    """The most memory, in bytes, that a process has had since :func:`forget_peak`."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def forget_peak(pid: int) -> int:
    """Begin anew with what a process has now, and give that."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)
