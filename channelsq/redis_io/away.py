"""One error, :class:`ServerAway`, for redis-py's errors of a server that answers but is temporarily away.

:mod:`channelsq.redis_core.server_errors` defines these errors.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from channelsq.redis_core.server_errors import FULL, is_away, text_of
from channelsq.redis_io.redis_internals import KernelTimeouts


class ServerAway(RedisError, OSError):
    """The server answers and refuses for now.  An OSError, as errors of lost connections are for Kombu and Celery.

    It is not redis-py's ConnectionError, after which redis-py would retry for seconds.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        #: Whether the server refused only because its memory is full.
        self.full = text.startswith(FULL)

    def __repr__(self) -> str:
        """Return the class and the text, as Celery logs it; redis-py's own version lacks the text."""
        return f"{type(self).__name__}({str(self)!r})"


#: The errors of a server that cannot be reached, or refuses for now: :class:`ServerAway` is an OSError.
UNREACHABLE = RedisConnectionError, RedisTimeoutError, OSError


def as_away(error: BaseException) -> ServerAway | None:
    """Return a server's error as :class:`ServerAway`, or None if it has another meaning."""
    if isinstance(error, ServerAway):
        return error
    text = text_of(error)
    return ServerAway(text) if is_away(text) else None


def is_unreachable(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, means that the server is away or its connection lost.

    Kombu raises its own errors from redis-py's, and their text lacks the code.
    """
    while error is not None:
        if isinstance(error, UNREACHABLE) or as_away(error) is not None:
            return True
        error = error.__cause__
    return False


def watch(params: dict[str, Any]) -> dict[str, Any]:
    """Make the connections of a pool raise :class:`ServerAway`, for every reader.

    Args:
        params: keyword arguments of redis-py's ConnectionPool, with ``connection_class``.
    """
    connection_class: type[Any] = params["connection_class"]

    class Connection(KernelTimeouts, connection_class):  # type: ignore[misc]
        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().read_response(*args, **kwargs)
            except ResponseError as error:
                away = as_away(error)
                if away is None:
                    raise
                self.disconnect()  # more replies may follow, and no code would read them
                raise away from error

    return {**params, "connection_class": Connection}
