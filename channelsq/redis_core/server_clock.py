"""The server's clock, read with the command TIME."""

from __future__ import annotations

from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.operations import Operation, ask

#: Reads the clock.
TIME: Command = ("TIME",)


def seconds_of(reply: Reply) -> float:
    """Return the reply to TIME in seconds since 1970."""
    return int(reply[0]) + int(reply[1]) / 1_000_000


def milliseconds_of(reply: Reply) -> int:
    """Return the reply to TIME in ms since 1970, the unit of entry ids."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def server_time() -> Operation[float]:
    """Return the seconds since 1970."""
    (reply,) = yield from ask(TIME)
    return seconds_of(reply)


class ServerClock:
    """The server's clock, as an offset to a local clock that is measured at each request."""

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead: float | None = None

    @property
    def is_set(self) -> bool:
        """True if the offset has been measured."""
        return self._ahead is not None

    def set(self, reply: Reply, now: float) -> None:
        """Store the offset; ``reply`` to TIME came at the time ``now`` of the local clock."""
        self._ahead = seconds_of(reply) - now

    def milliseconds(self, now: float) -> int:
        """Return the server's time in ms since 1970, at the time ``now`` of the local clock."""
        return int((now + (self._ahead or 0.0)) * 1000)
