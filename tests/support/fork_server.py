"""Start Python programs by forking a process that has already imported the packages that they need.

:mod:`tests.support.forked` runs this file with the names of those packages.  It reads requests from stdin and
answers on stdout, one JSON line each.  It imports nothing that reads settings: each program does that itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import sys
from typing import Any


def main(packages: list[str]) -> dict[str, Any] | None:
    """Serve requests until stdin ends; in a forked process, return the program that it is to run."""
    for name in packages:
        with contextlib.suppress(ImportError):  # other versions of a package may not have the module
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        if "wait" in request:
            ended, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if not answer:
                os.close(answers)
                return dict(request)
            os.setpgid(answer, answer)  # before anybody knows of it: it is ended with its children, by their group
        os.write(answers, json.dumps(answer).encode() + b"\n")
    return None


def become(program: dict[str, Any]) -> None:
    """Turn this process into one that was started for the program: its files, folder and environment."""
    for name, number in ((os.devnull, 0), (program["log"], 1), (program["log"], 2)):
        opened = os.open(name, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["env"])
    importlib.invalidate_caches()
    sys.argv = program["argv"]


def run(program: dict[str, Any]) -> None:
    """Run the program as ``python -m module`` or ``python script`` does."""
    if program["module"] is not None:
        sys.path[0] = os.getcwd()
        runpy.run_module(program["module"], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    found = main(sys.argv[1:])
    if found is not None:
        become(found)
        run(found)
