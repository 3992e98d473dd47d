"""A pool of connections to Redis whose callers wait for a free one."""

from __future__ import annotations

import threading
from typing import Any

import redis


class WaitingPool(redis.ConnectionPool):
    """redis-py's pool, with a limit of connections at which callers wait instead of getting an error.

    redis-py's own ``BlockingConnectionPool`` cannot disconnect idle connections alone before redis-py 6.

    Args:
        most: the most connections in use.
        patience: the seconds for which a caller waits for one.
        params: see redis-py's ConnectionPool.
    """

    def __init__(self, *, most: int, patience: float, **params: Any) -> None:
        self._most = most
        self._patience = patience
        super().__init__(**{**params, "max_connections": 2**31})

    def reset(self) -> None:
        """Forget all connections, as redis-py does after a fork."""
        self._room = threading.Semaphore(self._most)
        super().reset()

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection, perhaps after a while.

        Raises:
            redis.ConnectionError: none was free in time, or the server cannot be reached.
        """
        if not self._room.acquire(timeout=self._patience):
            raise redis.ConnectionError(f"none of {self._most} connections was free for {self._patience:g} s")
        try:
            return super().get_connection(*args, **kwargs)
        except BaseException:
            self._room.release()
            raise

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        try:
            super().release(connection)
        finally:
            self._room.release()
