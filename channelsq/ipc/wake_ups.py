"""Wake-ups: a process that sends wakes those that wait for what it sent, and no others.

Each waiter has a *slot*: a byte in the file ``waiting``, which all processes have in their memory, and a datagram
socket.  The byte says that the waiter waits.  A sender looks at the bytes of those that read the queue, after its
transaction, and sends an empty datagram to as many of them as it sent messages.  A wake-up that is lost costs little:
waiters look by themselves twice a second.
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

#: How many waiters a site can have; more look for messages by themselves.
SLOTS = 4096

#: The length that a socket's path may have; the systems' limits are 104 and 108 bytes.
_LONGEST_PATH = 100


class WakeUps:
    """The waiters of a site, as one process sees them.

    Args:
        directory: the site's.
        guard: a descriptor of it, which stays open.
    """

    def __init__(self, directory: Path, guard: int) -> None:
        self._guard = guard
        file = os.open("waiting", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=guard)
        try:
            os.posix_fallocate(file, 0, SLOTS)  # a hole that finds no room later would end the process
            self._flags = mmap.mmap(file, SLOTS)
        finally:
            os.close(file)
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._out.setblocking(False)
        self._place = str(directory)
        if len(os.fsencode(self._place)) > _LONGEST_PATH - 10 and os.path.isdir(f"/proc/self/fd/{guard}"):
            self._place = f"/proc/self/fd/{guard}"

    def close(self) -> None:
        """Give everything back."""
        self._out.close()
        self._flags.close()

    def path(self, slot: int) -> str:
        """Return the path of a waiter's socket, which is valid in this process."""
        return f"{self._place}/wake-{slot:x}"

    def arm(self, slot: int, *, waits: bool) -> None:
        """Say whether a waiter waits from now on."""
        self._flags[slot] = waits

    def wake(self, slots: Sequence[int], count: int) -> None:
        """Wake up to ``count`` of the waiters with these slots that wait."""
        for slot in slots if len(slots) == 1 else random.sample(slots, len(slots)):
            if self._flags[slot]:
                self._flags[slot] = 0
                if self.send(slot):
                    count -= 1
                    if not count:
                        return

    def send(self, slot: int) -> bool:
        """Send a wake-up; return False if the waiter is not there any more."""
        try:
            self._out.sendto(b"", self.path(slot))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it has so many that it is awake
            return True
        return True

    def bind(self, slot: int) -> socket.socket | None:
        """Return the socket of a new waiter; None where there can be none, as the path is too long."""
        path = self.path(slot)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.unlink(slot)  # that of a process which was killed
            bound.bind(path)
            os.chmod(path, 0o600)
        except OSError as error:
            bound.close()
            logger.info("no wake-ups in %s, looking for news instead: %s", path, error)
            return None
        return bound

    def unlink(self, slot: int) -> None:
        """Remove the socket of a waiter that is gone."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(slot))
