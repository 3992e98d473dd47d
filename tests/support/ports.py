"""TCP ports for servers that tests start."""

from __future__ import annotations

import itertools
import os
import random
import socket

#: Below those that systems give to outgoing connections, so that none of these takes a port between
#: :func:`free_port` and the server's start.
_FIRST, _LAST = 12_000, 32_000


def _candidates() -> itertools.cycle[int]:
    """Ports of this process's own: pytest-xdist's workers share none, and other runs hardly any."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(_FIRST + worker, _LAST, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    start = random.randrange(len(ports))
    return itertools.cycle(ports[start:] + ports[:start])


_ports = _candidates()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    for port in itertools.islice(_ports, _LAST - _FIRST):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"no port of {_FIRST} to {_LAST} is free")


def is_open(port: int) -> bool:
    """Return whether a program on 127.0.0.1 accepts connections on ``port``."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
