"""A service manager: it listens, passes the socket to an interface server, and starts that anew when it may.

Arguments: a port or a path, a file that lets it start the server again, ``SOCK_STREAM`` or ``SOCK_DGRAM``, and those of
the server.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path


def listen(where: str, kind: str) -> socket.socket:
    """Return a socket that is bound to a port or a path."""
    listening = socket.socket(socket.AF_UNIX if "/" in where else socket.AF_INET, getattr(socket, kind))
    listening.bind(where if "/" in where else ("127.0.0.1", int(where)))
    if kind == "SOCK_STREAM":
        listening.listen(64)
    return listening


def start(listening: socket.socket, command: list[str]) -> int:
    """Start the server with the socket; return its process id."""
    child = os.fork()
    if not child:
        os.dup2(listening.fileno(), 3)
        os.set_inheritable(3, True)  # dup2 to itself does not do it
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
        os.execv(sys.executable, [sys.executable, "-m", "channelsq.interface", *command])
    return child


def say(what: str, value: int) -> None:
    """Write a line for the test."""
    sys.stdout.write(f"{what} {value}\n")
    sys.stdout.flush()


def main() -> None:
    """Keep a server running until SIGTERM."""
    where, go, kind, *command = sys.argv[1:]
    listening = listen(where, kind)
    child = 0

    def stop(number: int, frame: object) -> None:
        if child:
            os.kill(child, signal.SIGTERM)
        sys.exit()

    signal.signal(signal.SIGTERM, stop)
    while True:
        child = start(listening, command)
        say("started", child)
        say("ended", os.waitpid(child, 0)[1])
        child = 0
        while not Path(go).exists():
            time.sleep(0.02)
        Path(go).unlink()


if __name__ == "__main__":
    main()
