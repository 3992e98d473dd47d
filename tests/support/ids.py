"""Names for parametrized tests that are the same in every process, as pytest-xdist needs."""

from __future__ import annotations

import re


def steady_repr(value: object) -> str:
    """``repr(value)`` without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
