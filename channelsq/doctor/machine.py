"""This machine: the number of files that a process may open."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from channelsq.doctor.findings import Finding, not_applicable, ok, warning
from channelsq.interface.basis.config import ConfigError, read_config
from channelsq.interface.process.server import OTHER_FILES


def check_files() -> Iterator[Finding]:
    """Compare ``ulimit -n`` with the files that an interface server needs; it raises the soft limit itself."""
    if sys.platform == "win32":
        yield not_applicable("machine.files", "Windows has no limit of open files.")
        return
    import resource

    try:
        connections = read_config([], os.environ).max_connections
    except ConfigError as problem:
        yield warning(
            "machine.files", f"The interface server cannot be started so: {problem}.", "Correct the variable."
        )
        return
    needed = connections + OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = None if hard == resource.RLIM_INFINITY else hard
    if limit is not None and limit < needed:
        yield warning(
            "machine.files",
            f"A process started from here may open {limit} files (ulimit -Hn), and an interface server with "
            f"--max-connections {connections} needs {needed}.",
            f"Set LimitNOFILE={needed} in systemd's unit, `ulimit -n {needed}` in a shell, or lower --max-connections.",
            needed=needed,
            hard=limit,
        )
    else:
        shown = "any number of" if limit is None else str(limit)
        yield ok(
            "machine.files",
            f"A process started from here may open {shown} files (ulimit -Hn); an interface server needs {needed}.",
            needed=needed,
            hard=limit,
        )
