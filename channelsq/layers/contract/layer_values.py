"""The values that cross the contract of a channel layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

#: Called with the destination channels of a message (all of one process), the message, and the group that it was
#: sent to; None if it was sent to one channel.
Deliver = Callable[[Sequence[str], dict[str, Any], str | None], None]

Received = tuple[str, dict[str, Any]] | tuple[None, None]


def check_delay(delay: object) -> float:
    """Return a delay of seconds; raise ValueError if it is none."""
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay < math.inf:
        raise ValueError(f"delay must be seconds, 0 or more, not {delay!r}")
    return delay


class ChannelState(NamedTuple):
    """The state of a channel that workers consume; None for a value that the layer cannot tell."""

    #: How many messages wait, without those that workers hold.
    waiting: int | None = None
    #: How many messages workers hold and have not finished.
    held: int | None = None
    #: Seconds since the oldest waiting message was sent.
    oldest: float | None = None
    #: How many of its messages are dead letters.
    dead: int | None = None
    #: How many messages were sent to it since the broker has its queue, by all processes.
    sent: int | None = None


class Send(NamedTuple):
    """A checked and packed message to send; later changes to the original dict have no effect."""

    #: A channel name, or a group name if ``group`` is true.
    target: str
    #: The packed message.
    body: bytes
    group: bool = False
    #: Seconds before workers may run it.
    delay: float = 0.0
    #: The order of a WebSocket's message, if this is the report that it is done (``{"done": order}``).
    done: int | None = None
    #: The message's id, if it may have been sent before; otherwise a new one is created.
    identity: str | None = None
    #: The reply channel of a client's message: a layer of several servers sends it to that client's server.
    home: str | None = None


class Listener(Protocol):
    """The result of :meth:`BaseChannelLayer.listen`."""

    @property
    def connected(self) -> bool:
        """True if the listener is connected to the broker, as far as is known."""

    def stop(self) -> None:
        """Stop delivering; returns when no delivery is running."""
