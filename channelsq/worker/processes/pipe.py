"""Messages between a worker and its channel processes: lines of JSON over a socket pair."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

#: The most messages that wait for the other end of a :class:`PatientPipe`.
MOST = 1000


class Pipe:
    """One end of the connection.

    Args:
        end: one socket of the pair.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, **message: Any) -> bool:
        """Send a message; return False if the other end is closed.  From any thread."""
        line = json.dumps(message, default=str).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError:
            return False
        return True

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages as they arrive, until the other end is closed."""
        with self._socket.makefile("rb") as lines, self._socket:
            try:
                for line in lines:
                    yield json.loads(line)
            except (OSError, ValueError):  # the connection ended within a line
                return

    def close(self) -> None:
        """Close this end, so that the other end sees it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class PatientPipe(Pipe):
    """An end that sends in a thread, so that a peer that does not read blocks no caller.

    Args:
        end: one socket of the pair.
    """

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST)
        self._is_there = True
        threading.Thread(target=self._run, name="channelsq-pipe", daemon=True).start()

    def send(self, **message: Any) -> bool:
        """Queue a message; return False if the other end is closed or has not read :data:`MOST` messages."""
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
        with contextlib.suppress(queue.Full):  # then the thread is sending, and fails now
            self._waiting.put_nowait(None)
