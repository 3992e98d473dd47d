from __future__ import annotations

import subprocess
import sys
import time

import pytest

from channelsq.interface.basis.log_fields import masked, shown_target

SCRIPT = """
import logging
from channelsq.core import logs

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("session_key=a&b=1;token=c", "session_key=***&b=1;token=***"),
        ("a=1&token=x=y", "a=1&token=***"),
        ("TOKEN=a&%74oken=b&session%5Fkey=c", "TOKEN=***&%74oken=***&session%5Fkey=***"),
        ("tokens=a&my_token=b&token", "tokens=a&my_token=b&token"),
        (
            "invalid HTTP request line: GET /?token=abc HTTP/1.1 x",
            "invalid HTTP request line: GET /?token=*** HTTP/1.1 x",
        ),
        ("the client offers 'json', 'channelsq.token.a.b-c_d'", "the client offers 'json', 'channelsq.token.***'"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_masking_takes_no_time_that_grows_faster_than_the_text() -> None:
    began = time.monotonic()
    for text in ("a" * 500_000, "token" * 100_000, "channelsq.token" * 50_000, "&" * 500_000):
        assert masked(text) == text
    assert time.monotonic() - began < 5


def test_a_client_cannot_forge_a_line() -> None:
    assert shown_target("/a\r\nERROR: b\x1b[2J", b"c=\n\xff") == r"/a\r\nERROR: b\x1b[2J?c=\n\xff"
