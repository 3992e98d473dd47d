"""Has a process's clock go wrong by CLOCK_OFFSET seconds; for the PYTHONPATH of a process."""

import os
import time

_right = time.time
_offset = float(os.environ.get("CLOCK_OFFSET", "0"))


def _wrong() -> float:
    return _right() + _offset


time.time = _wrong
