"""Whether a thread waited for something, or was ready to run while no processor was free.

On a busy machine a thread that computes takes longer than its own processor time.  That is no sign that it waits for
something, and another thread would only take turns with it.
"""

from __future__ import annotations

import os
import threading

from channelsq.worker.running import greenlets

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # not Linux

    def pauses() -> int | None:
        """Return None: the system does not count them."""
        return None

else:

    def pauses() -> int | None:
        """Return how often the calling thread has given its processor up to wait; None if that is not counted."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw


class Delays:
    """The delays of the calling thread, as Linux counts them (``/proc/PID/task/TID/schedstat``).

    There are none elsewhere, and none of greenlets.  To read them lets other threads have the interpreter.
    """

    _file = -1
    _seen = 0.0

    def __init__(self) -> None:
        if greenlets.are_threads():  # they share one thread of the system, and there may be hundreds
            return
        try:
            self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._seen = self.seconds

    @property
    def seconds(self) -> float:
        """The seconds of delay since the thread began; of any thread's object."""
        if self._file < 0:
            return 0.0
        try:
            return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):  # the thread has ended, or the kernel does not count
            return 0.0

    def since(self) -> float:
        """Return the seconds of delay since it was asked last."""
        before, self._seen = self._seen, self.seconds
        return max(0.0, self._seen - before)

    def close(self) -> None:
        """Give the file back."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
