"""The work of a consumer before it answers, the same for both projects."""

from __future__ import annotations

import time

from django.db import connection


def wait(us: int) -> None:
    """Block for ``us`` microseconds, as a call of another service does."""
    time.sleep(us / 1e6)


def compute(us: int) -> None:
    """Use the processor for ``us`` microseconds of this thread's own time."""
    end = time.thread_time_ns() + us * 1000
    while time.thread_time_ns() < end:
        sum(range(100))


def query(text: str) -> str:
    """Send ``text`` to the database in a ``SELECT``; return the result."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [text])
        (answer,) = cursor.fetchone()
        return str(answer)
