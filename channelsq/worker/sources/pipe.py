"""What a worker and its channel processes tell each other: JSON, a line each, over a socket pair."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any


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
