"""The users who have an object open, sent to every page of the object when a page opens or closes.

Only the group of the object stores them, as the pages' sockets.  A membership ends with the socket, also if the
interface server is killed.
"""

from __future__ import annotations

import json
from typing import Any

from django.db.models import Model

from channelsq.asgi import ChannelLayerWrapper
from channelsq.contrib.admin.open_pages import CHANGE, group_of
from channelsq.contrib.admin.page_sockets import PageSocket, name_of, socket_on

#: The most updates in a row, if pages open and close meanwhile.
_ROUNDS = 5

#: The most users that a page names.
MOST_NAMES = 20


def frame(**content: Any) -> dict[str, Any]:
    """Return a text frame for a page."""
    return {"text": json.dumps(content, ensure_ascii=False)}


def tell_who_is_there(layer: ChannelLayerWrapper, model: type[Model], pk: str) -> None:
    """Send the users who have an object open to its pages; close sockets whose users may not see it any more.

    The update is sent at once, and again if the group has changed meanwhile: if two workers send updates at the same
    time, the last update includes both changes.
    """
    group = group_of(model, pk)
    members = _members(layer, group)
    for _ in range(_ROUNDS):
        sockets = _admitted(layer, members)
        for socket in sockets:
            socket.send(_people(socket, sockets))
        before, members = members, _members(layer, group)
        if members == before:
            return


def tell_one(layer: ChannelLayerWrapper, model: type[Model], pk: str, channel: str) -> None:
    """Send the users who have an object open to one of its pages."""
    sockets = _admitted(layer, _members(layer, group_of(model, pk)))
    for socket in sockets:
        if socket.channel.name == channel:
            socket.send(_people(socket, sockets))


def _members(layer: ChannelLayerWrapper, group: str) -> list[str]:
    return sorted(layer.group_channels(group))


def _admitted(layer: ChannelLayerWrapper, members: list[str]) -> list[PageSocket]:
    sockets = []
    for channel in members:
        socket = socket_on(layer, channel)
        if socket.page is None:
            continue  # the socket is leaving
        if socket.shown is None:
            socket.refuse()
        else:
            sockets.append(socket)
    return sockets


def _people(socket: PageSocket, sockets: list[PageSocket]) -> dict[str, Any]:
    """Return the frame with the other users who have the page's object in a change form, the earliest first."""
    others = [
        (each.page.opened, each)
        for each in sockets
        if each.page is not None and each.page.kind == CHANGE and each.channel.name != socket.channel.name
    ]
    people: dict[str, dict[str, Any]] = {}
    for opened, each in sorted(others, key=lambda other: other[0]):
        person = people.setdefault(each.user_key, {"name": name_of(each.user), "since": opened, "edits": False})
        person["edits"] |= each.may_edit
        person["you"] = each.user_key == socket.user_key
    named = list(people.values())[:MOST_NAMES]
    return frame(type="people", people=named, more=len(people) - len(named))
