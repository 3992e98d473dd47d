"""Measurement of scheduling delays: the time that a thread is ready to run but has no processor.

On a busy machine a computing thread takes longer than its own processor time.  That does not mean that the thread waits
for input or a lock, and another thread would only compete with it.
"""

from __future__ import annotations

import os
import threading

from channelsq.worker.running import greenlets

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # not Linux

    def pauses() -> int | None:
        """Return None: the system does not count pauses."""
        return None

else:

    def pauses() -> int | None:
        """Return the number of times that the calling thread has given up its processor to wait; None if unknown."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw


class Delays:
    """The delays of the calling thread, as Linux counts them (``/proc/PID/task/TID/schedstat``).

    On other systems and for greenlets the delays are 0.  Reading them releases the interpreter lock.
    """

    _file = -1
    _seen = 0.0

    def __init__(self) -> None:
        if greenlets.are_threads():  # greenlets share one system thread, and there may be hundreds
            return
        try:
            self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._seen = self.seconds

    @property
    def seconds(self) -> float:
        """The seconds of delay since the thread began; any thread may read them."""
        if self._file < 0:
            return 0.0
        try:
            return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):  # the thread has ended, or the kernel does not count
            return 0.0

    def since(self) -> float:
        """Return the seconds of delay since the last call."""
        before, self._seen = self._seen, self.seconds
        return max(0.0, self._seen - before)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
