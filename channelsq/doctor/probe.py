"""The doctor's WebSocket, which no application sees: it tests the whole way of a message at any time.

Workers claim its path before any route does.  The path is signed with ``SECRET_KEY``, so that only the site's own
processes can open one.  Each of its frames comes back with the name of the process that handled it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from typing import Any

from django.core import signing

from channelsq.core.names import WEBSOCKET_CONNECT, WEBSOCKET_RECEIVE
from channelsq.exceptions import DenyConnection, WebsocketCloseException
from channelsq.message import Message

#: Matches the paths of such WebSockets below any mount point.  Bounded, as a client may send any path.
PATH = r"(?:.{0,200}/)?channelsq-doctor/[^/]{1,200}/?$"

_SALT = "channelsq.doctor"

#: Seconds for which a path is valid.
AGE = 300

#: The number of characters of a frame that come back.
_MOST = 1000


def new_path() -> str:
    """Return a new path, without a slash in front."""
    return f"channelsq-doctor/{signing.TimestampSigner(salt=_SALT).sign(secrets.token_hex(6))}/"


def is_genuine(path: str) -> bool:
    """Return whether a process of this site made the path by :func:`new_path`, not long ago."""
    token = re.split(r"channelsq-doctor/", path)[-1].rstrip("/")
    try:
        signing.TimestampSigner(salt=_SALT).unsign(token, max_age=AGE)
    except signing.BadSignature:
        return False
    return True


def probe_consumer(message: Message, **kwargs: Any) -> None:
    """Accept the doctor's WebSocket and echo its frames; refuse any other.

    Raises:
        DenyConnection: the path is not genuine.
        WebsocketCloseException: the path is no longer genuine.
    """
    if message.reply_channel is None or message.channel_name not in (WEBSOCKET_CONNECT, WEBSOCKET_RECEIVE):
        return
    genuine = is_genuine(str(message.get("path", "")))
    if message.channel_name == WEBSOCKET_CONNECT:
        if not genuine:
            raise DenyConnection("the path was not signed by a process of this site, or is too old")
        message.reply_channel.send({"accept": True})
    elif not genuine:
        raise WebsocketCloseException(4003, "the path is too old")
    else:
        echo = {"echo": str(message.get("text", ""))[:_MOST], "worker": f"{socket.gethostname()}:{os.getpid()}"}
        message.reply_channel.send({"text": json.dumps(echo)})
