"""The values that cross the contract of a channel layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

#: Called with the channels that a message is for (all of one process), the message, and the group that it was
#: sent to; None if it was sent to the one channel itself.
Deliver = Callable[[Sequence[str], dict[str, Any], str | None], None]

Received = tuple[str, dict[str, Any]] | tuple[None, None]


class ChannelState(NamedTuple):
    """What is in a channel that workers consume; None for what the layer cannot tell."""

    #: How many messages wait, without those that workers have taken.
    waiting: int | None = None
    #: How many messages workers have taken and not finished.
    held: int | None = None
    #: Seconds for which the oldest message that waits has done so.
    oldest: float | None = None
    #: How many messages of it are dead letters.
    dead: int | None = None


class Send(NamedTuple):
    """A checked and packed message on its way; later changes to the dict it came from change nothing."""

    #: A channel name, or a group name if ``group`` is true.
    target: str
    #: The packed message.
    body: bytes
    group: bool = False
    #: Seconds to hold the message back.
    delay: float = 0.0
    #: If this is the report that a WebSocket's message is done with (``{"done": order}``): its order.
    done: int | None = None
    #: The id of its message, if it may have been sent before; a new one is made if there is none.
    identity: str | None = None


class Listener(Protocol):
    """What :meth:`BaseChannelLayer.listen` gives."""

    @property
    def connected(self) -> bool:
        """Whether it hears the broker, as far as is known."""

    def stop(self) -> None:
        """Deliver no more; returns when no delivery is running."""
