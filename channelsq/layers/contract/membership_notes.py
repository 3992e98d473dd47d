"""What an interface server is told of the groups that its sockets are in.

Memberships are in Redis, and whoever can reach it adds and discards them.  A Redis that comes back empty has lost them
all; the sockets are still there, and whoever has them can write their memberships down again, if it knows them.  So
each change is told to the process that has the socket: a message to ``websocket.send.<process>!``, a name that no
application can send to, since nothing stands behind the ``!``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from channelsq.core import names
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.wire import codec

#: What the sockets of interface servers are called; an HTTP request has ended before anything could be restored.
_SOCKETS = "websocket.send."


class Change(NamedTuple):
    """A membership that begins or ends."""

    group: str
    channel: str
    #: Whether it begins.
    joined: bool


def is_note(channel: str) -> bool:
    """Whether a channel is one that owners are told on."""
    return channel.endswith("!")


def note(change: Change) -> Send | None:
    """What is sent to the owner of a socket; None if the channel is no socket."""
    if not change.channel.startswith(_SOCKETS) or not names.is_process_channel(change.channel):
        return None
    content = {"joined" if change.joined else "left": [change.group, change.channel]}
    return Send(names.process_part(change.channel), codec.dumps(content))


def read_note(message: dict[str, Any]) -> Change | None:
    """The change in a message to an owner; None if it is something else."""
    for key in ("joined", "left"):
        match message.get(key):
            case [str(group), str(channel), *_]:
                return Change(group, channel, key == "joined")
    return None
