"""Wake-ups: a process that sends wakes the readers of its messages, and no other process.

Each waiter has a *slot*: a byte in the file ``waiting``, which all processes have in their memory, and a datagram
socket.  The byte says whether the waiter waits.  After its transaction a sender reads the bytes of the waiters for
the queue, and sends an empty datagram to as many of them as it sent messages.  A lost wake-up costs little: waiters
check for messages themselves twice a second.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import random
import socket
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger("channelsq.ipc")

#: The most waiters of a site with wake-ups; further ones poll.
SLOTS = 4096

#: The longest path of a socket; the systems' limits are 104 and 108 bytes.
_LONGEST_PATH = 100


class WakeUps:
    """The waiters of a site from the view of one process.

    Args:
        directory: the site's directory.
        guard: a descriptor of it, which stays open.
    """

    def __init__(self, directory: Path, guard: int) -> None:
        self._guard = guard
        file = os.open("waiting", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=guard)
        try:
            os.posix_fallocate(file, 0, SLOTS)  # a sparse block without space later would end the process
            self._flags = mmap.mmap(file, SLOTS)
        finally:
            os.close(file)
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._out.setblocking(False)
        self._place = str(directory)
        if len(os.fsencode(self._place)) > _LONGEST_PATH - 10 and os.path.isdir(f"/proc/self/fd/{guard}"):
            self._place = f"/proc/self/fd/{guard}"

    def close(self) -> None:
        """Close the file and its mapping."""
        self._out.close()
        self._flags.close()

    def path(self, slot: int) -> str:
        """Return the path of a waiter's socket, which is valid in this process."""
        return f"{self._place}/wake-{slot:x}"

    def arm(self, slot: int, *, waits: bool) -> None:
        """Record whether a waiter waits from now on."""
        with contextlib.suppress(ValueError):  # another thread has closed the store, so there is nothing to wait for
            self._flags[slot] = waits

    def wake(self, slots: Sequence[int], count: int) -> None:
        """Wake up to ``count`` of the waiters with these slots that wait."""
        for slot in slots if len(slots) == 1 else random.sample(slots, len(slots)):
            if self._flags.closed:  # by another thread; the waiters look by themselves
                return
            if self._flags[slot]:
                self._flags[slot] = 0
                if self.send(slot):
                    count -= 1
                    if not count:
                        return

    def send(self, slot: int) -> bool:
        """Send a wake-up; return False if the waiter does not exist any more."""
        try:
            self._out.sendto(b"", self.path(slot))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its buffer is full, so it is awake
            return True
        return True

    def bind(self, slot: int) -> socket.socket | None:
        """Return the socket of a new waiter; None if the path is too long."""
        path = self.path(slot)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.unlink(slot)  # left by a process that was killed
            bound.bind(path)
            os.chmod(path, 0o600)
        except OSError as error:
            bound.close()
            logger.info("no wake-ups in %s, looking for news instead: %s", path, error)
            return None
        return bound

    def unlink(self, slot: int) -> None:
        """Remove the socket of a waiter that has ended."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(slot))
