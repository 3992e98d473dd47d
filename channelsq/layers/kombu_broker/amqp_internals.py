"""Changes to py-amqp's connections, so that every wait on one is bounded.

py-amqp passes each open connection to the function in its option ``on_open``: one of the two here.  The only private
part of py-amqp in use is ``_read``; ``tests/integration/faults/test_half_open_amqp.py`` pins it.
"""

from __future__ import annotations

import threading
from typing import Any

#: Seconds for which a broker may leave a request unanswered, or accept no data; ``read_timeout`` in the transport's
#: options overrides it.
SILENCE = 15.0

#: Seconds in which the rest of a frame must follow its start.
_REST_OF_A_FRAME = 5.0


class Blocked(Exception):
    """RabbitMQ accepts no messages on a connection, because it is short of memory or disk."""


def bound(connection: Any) -> None:
    """Bound every wait on a connection, and let several threads write to it.

    py-amqp itself waits for an answer without a limit.  In an event loop it uses the whole CPU, without end, if the
    rest of a frame does not come.
    """
    transport = connection.transport
    transport.sock.settimeout(connection.read_timeout or SILENCE)
    read = transport._read

    def read_on(size: int, initial: bool = False) -> Any:
        if initial:
            return read(size, True)
        with transport.having_timeout(_REST_OF_A_FRAME):
            return read(size)

    transport._read = read_on
    connection.frame_writer = _one_at_a_time(connection.frame_writer)


def bound_publisher(connection: Any) -> None:
    """Call :func:`bound`, and end waits for a confirmation when RabbitMQ blocks the connection."""
    bound(connection)
    connection.is_blocked = False

    def on_blocked(reason: str) -> None:
        connection.is_blocked = True
        raise Blocked("RabbitMQ accepts no messages now, as it is short of memory or disk (see its log)")

    def on_unblocked() -> None:
        connection.is_blocked = False

    connection.on_blocked = on_blocked
    connection.on_unblocked = on_unblocked


def was_unblocked(connection: Any) -> bool:
    """Return whether a connection was blocked, and is not any more.

    Raises:
        Blocked: it still is.
    """
    if not getattr(connection, "is_blocked", False):
        return False
    try:
        while connection.is_blocked:
            connection.drain_events(timeout=0)
    except TimeoutError:
        raise Blocked("RabbitMQ still accepts no messages, as it is short of memory or disk (see its log)") from None
    return True


def _one_at_a_time(write: Any) -> Any:
    lock = threading.Lock()  # py-amqp before 5.4 does not lock its one buffer

    def write_frame(*args: Any) -> Any:
        with lock:
            return write(*args)

    return write_frame
