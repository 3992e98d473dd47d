"""How processes that wait for messages are woken by others: each has a datagram socket in the directory, its bell.

A ring carries nothing, and one that is lost costs little: who waits looks by itself twice a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("channelsq.ipc")

_BELL = "bell-"


class WakeUps:
    """This process's bell, and the way to those of the others.

    Args:
        directory: where they are.
        number: what nobody else's is called.
        rung: called, in a thread, when this process is rung for.
    """

    def __init__(self, directory: Path, number: int, rung: Callable[[], None]) -> None:
        self._directory = directory
        self._name = f"{_BELL}{number:x}"
        self._rung = rung
        self._lock = threading.Lock()
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._out.setblocking(False)
        self._mine: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._silent = False
        self._closed = False

    def hang(self) -> bool:
        """Be rung from now on; false if that cannot be, as the directory's path is too long for a socket."""
        with self._lock:
            if self._thread is not None or self._silent or self._closed:
                return self._thread is not None
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                bell.bind(str(self._directory / self._name))
                os.chmod(self._directory / self._name, 0o600)
            except OSError as error:
                bell.close()
                self._silent = True
                logger.info("no bell in %s, looking for news instead: %s", self._directory, error)
                return False
            self._mine = bell
            self._thread = threading.Thread(target=self._listen, args=(bell,), name="channelsq-bell", daemon=True)
            self._thread.start()
            return True

    def ring(self) -> None:
        """Wake every other process that waits."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return
        for name in names:
            if name.startswith(_BELL) and name != self._name:
                path = str(self._directory / name)
                try:
                    self._out.sendto(b"", path)
                except ConnectionRefusedError:  # its process is dead
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                except OSError:  # gone by now; or full, so that it will wake anyway
                    continue

    def close(self) -> None:
        """Take the bell away."""
        with self._lock:
            self._closed = True
            mine, self._mine = self._mine, None
        if mine is not None:
            path = str(self._directory / self._name)
            with contextlib.suppress(OSError):  # of a thread that waits
                self._out.sendto(b"", path)
            with contextlib.suppress(OSError):
                os.unlink(path)
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join(1)
            mine.close()
        self._out.close()

    def _listen(self, bell: socket.socket) -> None:
        while not self._closed:
            try:
                bell.recv(1)
                with contextlib.suppress(BlockingIOError):  # any number of rings is one
                    while True:
                        bell.recv(1, socket.MSG_DONTWAIT)
            except OSError:
                return
            self._rung()
