"""Which of a Redis server's errors mean that it is away for now, though it answers.

A master that has become a replica, one whose replicas are gone, a full disk, a server that loads its data: it refuses
whatever it is asked, and goes on later.  All of channelsq asks here which errors those are, and then does as after a
lost connection: waits, says so, and goes on when it is over.  A refused command changed nothing.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from channelsq.transport.redis_internals import KernelTimeouts

#: The code of a full server.  It refuses what needs more memory, and that alone.
FULL = "OOM"

#: The codes, which an error's text begins with.  The same as in ``lua/settle.lua``.
CODES = frozenset(
    {
        "BUSY",  # a script runs for too long
        "CLUSTERDOWN",
        "LOADING",  # it reads its data
        "MASTERDOWN",  # a replica without its master
        "MISCONF",  # it cannot save: the disk is full, say
        "NOAUTH",
        "NOREPLICAS",  # fewer than min-replicas-to-write
        FULL,
        "READONLY",  # a replica: it was the master, or the name still leads to the old one
        "TRYAGAIN",
        "WRONGPASS",  # a password that was changed here and not there yet
    }
)

#: Beginnings of other texts: of a connection too many, and of a wait that a master's end has ended.
_STARTS = ("ERR max number of clients reached", "UNBLOCKED force")

#: Texts before the server's own in the error of a whole transaction, and of redis-py's pipelines.
_ABORTED, _IN_PIPELINE = "because of: ", "of pipeline caused error: "

#: Codes that redis-py leaves out of the text of these errors, where it does not keep them in ``status_code``.
_CODE_OF = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": FULL,
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "ExecAbortError": "EXECABORT",
}

#: Ask a server whether it would write, without writing anything: a script without ``no-writes`` is refused whenever a
#: write would be.  The second is not refused by a server that is full.
MAY_WRITE = ("EVAL", "#!lua flags=no-cluster\nreturn 1", 0)
MAY_WRITE_IF_FULL = ("EVAL", "#!lua flags=no-cluster,allow-oom\nreturn 1", 0)


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


def is_away(text: str) -> bool:
    """Whether an error's text, as the server sent it, says that it is away for now."""
    if text.partition(" ")[0] in CODES or text.startswith(_STARTS):
        return True
    return text.startswith("EXECABORT") and is_away(text.partition(_ABORTED)[2])


def text_of(error: BaseException) -> str:
    """The text of one of redis-py's errors as the server sent it; redis-py takes some of the codes off."""
    code = getattr(error, "status_code", None) or _CODE_OF.get(type(error).__name__)
    text = str(error).rpartition(_IN_PIPELINE)[2]
    return f"{code} {text}" if code and not text.startswith(f"{code} ") else text


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
