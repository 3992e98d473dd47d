"""The sockets of open dashboards, with the current permissions of their users.

The user is read from the browser's session each time, so that a logout, a new password and lost permissions take effect
at once.
"""

from __future__ import annotations

import json
import logging
from functools import cached_property
from typing import Any

from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.channel import Group
from channelsq.contrib.dashboard.dashboard_users import may_act, may_look
from channelsq.exceptions import ChannelFull
from channelsq.message import Message
from channelsq.sessions import channel_and_http_session

logger = logging.getLogger("channelsq.contrib.dashboard")

#: The group of all open dashboards.
GROUP = "channelsq.dashboard"

#: The most open dashboards; further pages try again later.
MOST_DASHBOARDS = 50

#: The close codes for a user who may not see the dashboard, and for too many dashboards.
NOT_ALLOWED, FULL = 4403, 4013


class DashboardSocket:
    """A socket of a dashboard.

    Args:
        message: a message of the socket, with both sessions.
    """

    def __init__(self, message: Message) -> None:
        self.channel = message.reply_channel
        self._session = message.http_session
        self._group = Group(GROUP, channel_layer=message.channel_layer)

    @cached_property
    def user(self) -> Any:
        """The user of the browser's session; AnonymousUser after a logout."""
        if self._session is None:
            return AnonymousUser()
        request = HttpRequest()
        request.session = self._session
        return get_user(request)

    @property
    def may_look(self) -> bool:
        """True if the dashboard is on and its user may see it."""
        return conf.dashboard_settings().is_on and may_look(self.user)

    @property
    def may_act(self) -> bool:
        """True if the user may also replay and delete dead letters."""
        return self.may_look and may_act(self.user)

    def join(self) -> None:
        """Add the socket to the group of dashboards."""
        self._group.add(self.channel)

    def send(self, **content: Any) -> None:
        """Send a frame at once; drop it if the socket's queue is full."""
        text = json.dumps(content, ensure_ascii=False)
        try:
            self.channel.send({"text": text, "droppable": True}, immediately=True)
        except ChannelFull:
            logger.info("the queue of %s is full", self.channel.name, extra={"action": "dashboard_socket_full"})

    def refuse(self, code: int = NOT_ALLOWED) -> None:
        """Close the socket, and remove it from the group."""
        self._group.discard(self.channel)
        self.channel.send({"close": code}, immediately=True)


def socket_on(layer: ChannelLayerWrapper, channel: str) -> DashboardSocket:
    """Return the socket with this reply channel."""
    return _with_sessions(Message({"reply_channel": channel, "path": "/"}, "websocket.receive", layer))


@channel_and_http_session
def _with_sessions(message: Message) -> DashboardSocket:
    return DashboardSocket(message)
