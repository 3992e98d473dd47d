"""The start and the end of channel processes: as the worker was started, and as Python ends a process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import atexit, os
from channelsq.worker.processes import python_internals
atexit.register(print, "spans were sent", flush=True)
print(*python_internals.interpreter_options(), flush=True)
python_internals.run_exit_functions()
os._exit(0)
"""


def test_a_process_gets_the_workers_options_and_tools_send_what_they_hold_at_its_end() -> None:
    options = ["-X", "utf8", "-W", "error::BytesWarning", "-B"]
    done = subprocess.run([sys.executable, *options, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told, ended = done.stdout.splitlines()
    assert {"-Werror::BytesWarning", "-B"} <= set(told.split())
    assert "utf8" in told.replace("-Xutf8", "utf8").split()
    assert ended == "spans were sent"
