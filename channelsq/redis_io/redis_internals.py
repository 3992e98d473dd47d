"""Private parts of redis-py's connections; ``tests/transport/test_connections.py`` holds what is asked of them."""

from __future__ import annotations

import socket
import struct
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: A ``struct timeval``.
_TIMEVAL = struct.Struct("@ll")


def socket_of(connection: Any) -> Any:
    """Return a connection's socket, by which one connection is told from the next; None without one."""
    return connection._sock


class KernelTimeouts:
    """Have the kernel keep a connection's timeout, for a class of redis-py's connections that follows.

    Where Python keeps it, each send and each receive asks first whether it would wait.  That is one system call more,
    and another thread may take the interpreter meanwhile.  Sockets with TLS, and those of gevent, stay as they are.
    """

    socket_timeout: float | None
    _sock: Any
    _parser: Any

    def _connect(self) -> Any:
        sock: Any = super()._connect()  # type: ignore[misc]
        if type(sock) is socket.socket and socket.socket.__module__ == "socket" and self.socket_timeout:
            seconds = float(self.socket_timeout)
            timeval = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            except OSError:  # a system that takes it in another form
                return sock
            sock.settimeout(None)
        return sock

    def on_connect(self) -> None:
        """Greet the server, as redis-py does; its parser before redis-py 8 sets the timeout again after each look."""
        super().on_connect()  # type: ignore[misc]
        if self._sock.gettimeout() is None:
            self._parser._socket_timeout = None

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read a reply, as redis-py does.

        Raises:
            redis.TimeoutError: the kernel's timeout has passed, of which redis-py says only that nothing was read.
        """
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except RedisConnectionError as error:
            if not _is_late(error):
                raise
            raise RedisTimeoutError("Timeout reading from socket") from error

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """Write commands, as redis-py does; raises the same errors."""
        try:
            super().send_packed_command(*args, **kwargs)  # type: ignore[misc]
        except RedisConnectionError as error:
            if not _is_late(error):
                raise
            raise RedisTimeoutError("Timeout writing to socket") from error


def _is_late(error: RedisConnectionError) -> bool:
    """Return whether redis-py's error says that the kernel's timeout has passed."""
    return isinstance(error.__context__, BlockingIOError)
