"""Private parts of redis-py's connections.

``tests/transport/test_connections.py`` and ``tests/transport/test_sentinel.py`` pin them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from channelsq.redis_io.primaries import Address, Primary

#: A ``struct timeval``.
_TIMEVAL = struct.Struct("@ll")


def socket_of(connection: Any) -> Any:
    """Return a connection's socket, which distinguishes it from the next connection; None without one."""
    return connection._sock


class KernelTimeouts:
    """Timeouts in the kernel, for the redis-py connection class that follows in the bases.

    With a timeout in Python, each send and each receive first checks whether it would block.  That is one more system
    call, and another thread may take the interpreter meanwhile.  Sockets with TLS and gevent's sockets stay unchanged.
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
            except OSError:  # this system has another format for timeouts
                return sock
            sock.settimeout(None)
        return sock

    def on_connect(self) -> None:
        """Greet the server, as redis-py does; before redis-py 8 its parser resets the timeout after each check."""
        super().on_connect()  # type: ignore[misc]
        if self._sock.gettimeout() is None:
            self._parser._socket_timeout = None

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read a reply, as redis-py does.

        Raises:
            redis.TimeoutError: the kernel's timeout has passed; redis-py reports only that nothing was read.
        """
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except RedisConnectionError as error:
            if not _is_late(error):
                raise
            raise RedisTimeoutError("Timeout reading from socket") from error

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """Write commands, as redis-py does; raise the same errors."""
        try:
            super().send_packed_command(*args, **kwargs)  # type: ignore[misc]
        except RedisConnectionError as error:
            if not _is_late(error):
                raise
            raise RedisTimeoutError("Timeout writing to socket") from error


def _is_late(error: RedisConnectionError) -> bool:
    """Return whether redis-py's error means that the kernel's timeout has passed."""
    return isinstance(error.__context__, BlockingIOError)


class PrimaryConnection(redis.Connection):
    """A connection to the current primary, which its Sentinels name each time when it connects.

    Args:
        primary: the primary.
        kwargs: redis-py's own, without host and port.
    """

    _sock: Any

    def __init__(self, *, primary: Primary, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self._primary = primary
        self._address: Address | None = None
        self._tcp: Any = None

    def _connect(self) -> Any:
        self.host, self.port = self._address = self._primary.address()
        self._tcp = super()._connect()  # type: ignore[no-untyped-call]
        self._primary.follow(self)
        return self._tcp

    @property
    def followed_address(self) -> Address | None:
        """The server to which it is connected; None while it is not."""
        return None if self._sock is None and self._tcp is None else self._address

    def primary_moved(self) -> None:
        """Wake the thread that waits for this connection, and let it find the connection closed."""
        tcp, self._tcp = self._tcp, None
        for sock in (tcp, self._sock):
            with contextlib.suppress(AttributeError, OSError):  # there is none, or its own thread has closed it
                sock.shutdown(socket.SHUT_RDWR)

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection, as redis-py does."""
        self._tcp = None
        super().disconnect(*args, **kwargs)  # type: ignore[no-untyped-call]


class PrimarySSLConnection(redis.SSLConnection, PrimaryConnection):
    """The same with TLS."""
