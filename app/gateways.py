"""Texts and mails in a chat room, if ``GATEWAY_ROOM`` in the settings names the room's slug.

A text or mail appears in the room under a handle, such as ``sms-1f2e3d4c``: the room does not see its
sender's address.  A member answers with ``@sms-1f2e3d4c Hello``, for as long as the message's reply channel lives.
"""

from __future__ import annotations

import hashlib
import re

from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils.crypto import salted_hmac

from app.models import TEXT_LENGTH, Room
from channelsq import Group
from channelsq.message import Message

_ANSWER = re.compile(r"@((?:sms|email)-[0-9a-f]{16})\s+(\S.*)", re.DOTALL)


def text_came(message: Message) -> None:
    """Show a text in the room."""
    show(message, "sms", message["from"], message["text"], message["id"])


def mail_came(message: Message) -> None:
    """Show a mail in the room."""
    text = "\n".join(part for part in (message["subject"], message["text"].strip()) if part)
    show(message, "email", message["sender"], text, message["message_id"] or message.id)


def show(message: Message, kind: str, address: str, text: str, identity: str) -> None:
    """Post a text or mail, once, and let members answer it through its reply channel."""
    room = Room.objects.filter(slug=settings.GATEWAY_ROOM).first()
    if room is None:
        message.reply_channel.send({"text": "This room does not exist."})
        return
    handle = f"{kind}-{salted_hmac('app.gateways', address).hexdigest()[:16]}"
    group = answers_to(handle)
    for earlier in group.channel_layer.group_channels(group.name):  # one answer, also after several messages
        group.discard(earlier)
    group.add(message.reply_channel)
    author, _ = get_user_model().objects.get_or_create(username=handle)  # without a password: no login
    key = hashlib.sha256(identity.encode()).hexdigest()[:36]
    room.post(author, (text or "(empty)")[:TEXT_LENGTH], key, source=kind)


def answer(room: Room, text: str) -> None:
    """Send a member's message to the writer whom it names, if it names one."""
    found = _ANSWER.fullmatch(text)
    if found is not None and room.slug == getattr(settings, "GATEWAY_ROOM", ""):
        answers_to(found[1]).send({"text": found[2], "automatic": False})


def answers_to(handle: str) -> Group:
    """Return the group with the reply channel of a writer's last message."""
    return Group(f"answers-{handle}")
