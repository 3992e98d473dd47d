"""A share of a processor core for one process, by a control group of Linux.

With it a Redis is the limit of a site that computes more than its Redis does, as most sites on few cores do.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")

#: Microseconds in which the share is counted: short, as a process that has used its share waits for the next period.
#: Linux takes no share below 1 ms, which is 0.05 of this.
_PERIOD = 20_000


def limit(pid: int, share: float) -> Path:
    """Give a process no more than a share of one core, and return its control group.

    Args:
        pid: the process.
        share: 1 is a whole core.

    Raises:
        SystemExit: the control group cannot be made; the text says why.
    """
    first = _ROOT / "cpu"  # version 1 of control groups has a folder for each kind of limit
    group = (first if first.is_dir() else _ROOT) / f"channelsq-benchmarks-{pid}"
    quota = str(int(share * _PERIOD))
    try:
        group.mkdir()
        if first.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(quota)
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD}")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        end(group)
        raise SystemExit(f"benchmarks: --redis-share needs root and Linux's control group cpu: {error}") from None
    return group


def end(group: Path) -> None:
    """Delete the control group of a process that has ended, if it is there."""
    with contextlib.suppress(OSError):  # the kernel may still be busy with the process
        group.rmdir()
