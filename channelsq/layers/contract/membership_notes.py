"""Notes to an interface server or a gateway about the groups of its clients.

Memberships are in Redis, and every process that reaches it can change them.  A Redis that restarts empty has lost
them.  The sockets are still open, and their interface server can write the memberships again if it knows them.  So the
process with the socket is told of each change: by a message to ``websocket.send.<process>!``, a name that no
application can send to, since it ends with the ``!``.  A gateway is told in the same way, at
``gateway.send.<process>!``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from channelsq.core import names
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.wire import codec

#: The prefixes of sockets and of gateways' reply channels; an HTTP request ends before anything could be restored.
_CLIENTS = ("websocket.send.", f"{names.GATEWAY_SEND}.")


class Change(NamedTuple):
    """The begin or the end of a membership."""

    group: str
    channel: str
    #: Whether the membership begins.
    joined: bool


def is_note(channel: str) -> bool:
    """Return whether a channel is a destination of notes."""
    return channel.endswith("!")


def note(change: Change) -> Send | None:
    """Return the message to the process with a client; None if the channel is neither a socket's nor a gateway's."""
    if not change.channel.startswith(_CLIENTS) or not names.is_process_channel(change.channel):
        return None
    content = {"joined" if change.joined else "left": [change.group, change.channel]}
    return Send(names.process_part(change.channel), codec.dumps(content))


def read_note(message: dict[str, Any]) -> Change | None:
    """Return the change in a note; None if the message is something else."""
    for key in ("joined", "left"):
        match message.get(key):
            case [str(group), str(channel), *_]:
                return Change(group, channel, key == "joined")
    return None
