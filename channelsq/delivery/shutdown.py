"""The time for which a stopping worker continues its streaming responses.

A platform kills a process some time after it asked the process to stop (Heroku: 30 s).  It would kill a view that
streams for longer in the middle.  So the worker closes the view's generator before, and the client sees that the answer
broke off.
"""

from __future__ import annotations

import mmap
import struct
import time

from channelsq import conf

# The time.monotonic() at which the worker ends its streaming responses; 0 until it is asked to stop.  Anonymous shared
# memory, so that the processes of a prefork pool, which are forked after this import, see their parent's value.
_until = mmap.mmap(-1, 8)

_FORMAT = "d"


class ShuttingDown(Exception):
    """A streaming response is cut off, as its stopping worker has no time left."""


def begin() -> None:
    """Record that this worker, and every process forked from it, must stop.  Only the first call counts."""
    if not struct.unpack(_FORMAT, _until[:])[0]:
        _until[:] = struct.pack(_FORMAT, time.monotonic() + conf.shutdown_timeout())


def reset() -> None:
    """Record that a worker begins in this process."""
    _until[:] = bytes(8)


def is_over() -> bool:
    """Return whether streaming responses must end now."""
    until: float = struct.unpack(_FORMAT, _until[:])[0]
    return 0 < until <= time.monotonic()
