"""How long a worker that is told to end goes on with the answers that it streams.

A platform kills a process some time after it told it to end (Heroku: 30 s).  A view that streams for longer would be
killed in the middle, so its generator is closed before, and the client sees that the answer broke off.
"""

from __future__ import annotations

import mmap
import struct
import time

from channelsq import conf

# The time.monotonic() at which the worker's answers are cut; 0 while nobody has told it to end.  Anonymous shared
# memory, so that the processes of a prefork pool, which are forked after this import, see what their parent writes.
_until = mmap.mmap(-1, 8)

_FORMAT = "d"


class ShuttingDown(Exception):
    """An answer that streams is cut, as its worker is told to end and has no time left."""


def begin() -> None:
    """Note that this worker, and every process forked from it, is told to end.  Only the first call counts."""
    if not struct.unpack(_FORMAT, _until[:])[0]:
        _until[:] = struct.pack(_FORMAT, time.monotonic() + conf.shutdown_timeout())


def reset() -> None:
    """Note that a worker begins in this process."""
    _until[:] = bytes(8)


def is_over() -> bool:
    """Return whether the answers that still stream are to be cut."""
    until: float = struct.unpack(_FORMAT, _until[:])[0]
    return 0 < until <= time.monotonic()
