"""The doctor's WebSocket: one that no application sees, so that the whole way of a message can be tried at any time.

Workers claim its path before any route does.  It is signed with ``SECRET_KEY``, so that nobody but the site's own
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

#: Matches the paths of such WebSockets, wherever the site is mounted.  Bounded, as a client may send any path.
PATH = r"(?:.{0,200}/)?channelsq-doctor/[^/]{1,200}/?$"

_SALT = "channelsq.doctor"

#: Seconds for which a path can be used.
AGE = 300

#: Characters of a frame that come back.
_MOST = 1000


def new_path() -> str:
    """Return the path of a new one, without a slash in front."""
    return f"channelsq-doctor/{signing.TimestampSigner(salt=_SALT).sign(secrets.token_hex(6))}/"


def is_genuine(path: str) -> bool:
    """Return whether :func:`new_path` made a path, in a process of this site and not long ago."""
    token = re.split(r"channelsq-doctor/", path)[-1].rstrip("/")
    try:
        signing.TimestampSigner(salt=_SALT).unsign(token, max_age=AGE)
    except signing.BadSignature:
        return False
    return True


def probe_consumer(message: Message, **kwargs: Any) -> None:
    """Accept the doctor's WebSocket and echo what it sends; refuse any other.

    Raises:
        DenyConnection: the path is not genuine.
        WebsocketCloseException: it is not any more.
    """
    if message.reply_channel is None or message.channel_name not in (WEBSOCKET_CONNECT, WEBSOCKET_RECEIVE):
        return
    genuine = is_genuine(str(message.get("path", "")))
    if message.channel_name == WEBSOCKET_CONNECT:
        if not genuine:
            raise DenyConnection("the path is signed by no process of this site, or was long ago")
        message.reply_channel.send({"accept": True})
    elif not genuine:
        raise WebsocketCloseException(4003, "the path is too old")
    else:
        echo = {"echo": str(message.get("text", ""))[:_MOST], "worker": f"{socket.gethostname()}:{os.getpid()}"}
        message.reply_channel.send({"text": json.dumps(echo)})
