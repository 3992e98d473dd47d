from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import logging
from channelsq import logs

parent, child = logging.getLogger("library"), logging.getLogger("library.part")
parent.addHandler({handler})
logs.show({{"library.part": logging.INFO}})
child.info("heard")
child.debug("not heard")
"""


@pytest.mark.parametrize(
    ("handler", "shown"),
    [
        ("logging.NullHandler()", "INFO library.part: heard"),
        ("logging.StreamHandler()", "heard"),
    ],
    ids=["silent", "the project's own"],
)
def test_a_logger_is_heard_once(handler: str, shown: str) -> None:
    """In a process of its own, because pytest listens to every logger of this one."""
    code = SCRIPT.format(handler=handler)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith(shown)
    assert ("INFO" in line) == ("Null" in handler)
