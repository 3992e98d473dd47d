"""Redis-py's errors that mean that a server is away for now, though it answers, as one error: :class:`ServerAway`.

Which errors those are is said in :mod:`channelsq.redis_core.server_errors`.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from channelsq.redis_core.server_errors import FULL, is_away, text_of
from channelsq.redis_io.redis_internals import KernelTimeouts


class ServerAway(RedisError, OSError):
    """The server answers, and refuses for now.  An OSError, as those of lost connections are to Kombu and Celery.

    Not redis-py's ConnectionError, after which it would itself try again, seconds long.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        #: Whether it refused only because it needs more memory.
        self.full = text.startswith(FULL)

    def __repr__(self) -> str:
        """With the text, as Celery logs it; redis-py's own says nothing of that."""
        return f"{type(self).__name__}({str(self)!r})"


#: What is raised where a server could not be asked, or refused for now: :class:`ServerAway` is an OSError.
UNREACHABLE = RedisConnectionError, RedisTimeoutError, OSError


def as_away(error: BaseException) -> ServerAway | None:
    """An error that the server answered with as :class:`ServerAway`; None if it says something else."""
    if isinstance(error, ServerAway):
        return error
    text = text_of(error)
    return ServerAway(text) if is_away(text) else None


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that the server is away or its connection lost.

    Kombu raises errors of its own from redis-py's, in whose text the code is missing.
    """
    while error is not None:
        if isinstance(error, UNREACHABLE) or as_away(error) is not None:
            return True
        error = error.__cause__
    return False


def watch(params: dict[str, Any]) -> dict[str, Any]:
    """Have the connections of a pool raise :class:`ServerAway`, whoever reads from them.

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
                self.disconnect()  # more replies may be under way that nobody would read
                raise away from error

    return {**params, "connection_class": Connection}
