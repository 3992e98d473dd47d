"""What a worker and its channel processes tell each other: JSON, a line each, over a socket pair."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

#: Messages that wait for the other end of a :class:`PatientPipe` at most.
MOST = 1000


class Pipe:
    """One end.

    Args:
        end: of a socket pair.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, **message: Any) -> bool:
        """Send a message; False if the other end is gone.  From any thread."""
        line = json.dumps(message, default=str).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError:
            return False
        return True

    def messages(self) -> Iterator[dict[str, Any]]:
        """Return messages as they come, until the other end is gone."""
        with self._socket.makefile("rb") as lines, self._socket:
            try:
                for line in lines:
                    yield json.loads(line)
            except (OSError, ValueError):  # cut in the middle of a line
                return

    def close(self) -> None:
        """Tell the other end that this one is gone."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class PatientPipe(Pipe):
    """An end that sends in a thread of its own: another end that does not read holds nobody up.

    Args:
        end: of a socket pair.
    """

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST)
        self._is_there = True
        threading.Thread(target=self._run, name="channelsq-pipe", daemon=True).start()

    def send(self, **message: Any) -> bool:
        """Have a message sent; False if the other end is gone, or has not read :data:`MOST` messages."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            return False
        return self._is_there

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            if not super().send(**message):
                self._is_there = False
                return

    def close(self) -> None:
        super().close()
        with contextlib.suppress(queue.Full):  # then the thread is sending, which fails now
            self._waiting.put_nowait(None)
