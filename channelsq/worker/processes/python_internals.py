"""Functions with which Python starts and ends a process like the current one.

Private parts of the standard library; ``tests/unit/worker/processes/test_python_internals.py`` pins them.
"""

from __future__ import annotations

import atexit
import subprocess


def run_exit_functions() -> None:
    """Run the functions registered with ``atexit``, as Python does at the end of a process."""
    atexit._run_exitfuncs()


def interpreter_options() -> list[str]:
    """Return the interpreter's options (``-X``, ``-W``, …), for a process like this one."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]
