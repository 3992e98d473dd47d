"""The state of billiard, the library of Celery's prefork pool, for the signal that ends a process of the pool.

A private part of billiard; ``tests/unit/delivery/test_ending.py`` pins it.
"""

from __future__ import annotations

from billiard import common

#: Set by billiard's signal handler before it raises SystemExit.
_signalled: list[bool] = common._should_have_exited  # type: ignore[attr-defined]  # not in its stubs


def signal_has_ended_process() -> bool:
    """Return whether billiard's signal handler has raised SystemExit in this process of a prefork pool."""
    return bool(_signalled[0])
