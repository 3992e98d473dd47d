"""Notices to all pages of the site: unread messages in other rooms, and mentions.

Room pages get them by their own socket.  All other pages open a small one at ``/notices/``.
"""

from __future__ import annotations

from typing import Any

from app.handshake import own_pages_only, user_of
from app.models import frame, unread_of
from app.models.rooms import EVERYWHERE
from channelsq import Group, User
from channelsq.auth import http_session_user
from channelsq.message import Message


@own_pages_only
@http_session_user
def connect(message: Message) -> None:
    """Accept the socket of a page outside the rooms.

    The socket joins the group of its user by itself: ``CHANNEL_USERS["join"]`` in the settings.
    """
    user = user_of(message)
    message.reply_channel.send({"accept": True})
    begin(message, user)


def receive(message: Message) -> None:
    """Answer a page that wants to know whether its connection still works; its frames have no other meaning."""
    message.reply_channel.send(frame(type="pong"))


def begin(message: Message, user: Any) -> None:
    """Send an accepted socket the numbers as they are, and all notices from now on."""
    Group(EVERYWHERE).add(message.reply_channel)
    message.reply_channel.send(frame(type="unread", **unread_of(user)))


def tell_unread(user: Any) -> None:
    """Correct the numbers of unread messages in all pages of a user."""
    User(user).send(frame(type="unread", **unread_of(user)))
