"""The consumers of the dashboards' sockets.

A page that is visible sends ``{"type": "look"}`` every two seconds.  These frames drive the sampler: see
:mod:`channelsq.contrib.dashboard.sampler`.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import OperationalError

from channelsq.contrib.dashboard.dashboard_sockets import FULL, GROUP, MOST_DASHBOARDS, NOT_ALLOWED, DashboardSocket
from channelsq.contrib.dashboard.letters import DELETE, REPLAY, act, list_letters
from channelsq.contrib.dashboard.sampler import Sampler
from channelsq.exceptions import BadFrame, ChannelLayerError
from channelsq.message import Message
from channelsq.options import consumer
from channelsq.security.websockets import allowed_hosts_only
from channelsq.sessions import channel_and_http_session

_again = consumer(autoretry_for=(OperationalError,), max_retries=3, retry_backoff=True)


@_again
@allowed_hosts_only
@channel_and_http_session
def connect(message: Message) -> None:
    """Accept a page's socket if its user is staff."""
    if DashboardSocket(message).may_look:
        message.reply_channel.send({"accept": True})
    else:
        # Accepted first: a page's script cannot tell a refused handshake from an unreachable server.
        message.reply_channel.send({"accept": True, "close": NOT_ALLOWED})


@_again
@channel_and_http_session
def receive(message: Message) -> None:
    """Handle a page's frame: hello at first, look while it is visible, letters, replay or delete.

    Raises:
        BadFrame: the frame is something else.
    """
    try:
        content = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        content = None
    kind = content.get("type") if isinstance(content, dict) else None
    socket = DashboardSocket(message)
    if not socket.may_look:
        socket.refuse()
    elif kind in ("hello", "look"):
        _look(message, socket, is_new=kind == "hello")
    elif kind == "letters":
        socket.send(type="letters", may_act=socket.may_act, layers=list_letters())
    elif kind in (REPLAY, DELETE):
        _act(socket, kind, content)
    else:
        raise BadFrame('no JSON object with the "type" hello, look, letters, replay or delete')


def _look(message: Message, socket: DashboardSocket, *, is_new: bool) -> None:
    layer = message.channel_layer
    records = layer.channel_layer.records
    if records is None:
        socket.send(
            type="problem",
            text=f"The layer {layer.alias!r} has no place for groups and records; set "
            f"CHANNEL_LAYERS[{layer.alias!r}]['CONFIG']['groups_url'] to a Redis.",
        )
        return
    sampler = Sampler(layer, records)
    try:
        if is_new:
            members = layer.group_channels(GROUP)
            if len(members) >= MOST_DASHBOARDS and socket.channel.name not in members:
                socket.refuse(FULL)
                return
            socket.join()
            socket.send(type="history", points=sampler.history())
        sampler.sample_if_due()
    except ChannelLayerError as error:
        socket.send(type="problem", text=str(error))


def _act(socket: DashboardSocket, action: str, content: dict[str, Any]) -> None:
    if not socket.may_act:
        socket.send(type="done", ok=False, text="You may not replay or delete dead letters.")
        return
    names = [content.get(key) for key in ("layer", "queue", "id")]
    if not all(isinstance(name, str) and len(name) <= 300 for name in names):
        raise BadFrame(f'{action} needs the texts "layer", "queue" and "id"')
    layer, queue, identity = map(str, names)
    ok, text = act(action, layer, queue, identity, socket.user)
    socket.send(type="done", ok=ok, text=text)
    socket.send(type="letters", may_act=True, layers=list_letters())


@channel_and_http_session
def disconnect(message: Message) -> None:
    """Delete the channel session of a closed page; its membership ends with the socket."""
    message.channel_session.flush()
