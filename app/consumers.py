"""What happens on the chat's sockets.

A consumer is a plain function.  Each of its runs is a Celery task, so Celery's retries, signals and tools
apply to it.  What it sends goes out when it returns, and not at all if it raises.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import OperationalError
from django.utils import timezone

from app.forms import MessageForm
from app.handshake import own_pages_only, request_of, user_of
from app.models import Presence, Room, frame
from channelsq import consumer
from channelsq.exceptions import DenyConnection, WebsocketCloseException
from channelsq.message import Message

#: The close code that tells a page to connect anew.
UNKNOWN_SOCKET = 4001


@own_pages_only
def connect(message: Message, room: str) -> None:
    """A page opens its socket: let it in, tell it what it missed, tell the others who came."""
    request = request_of(message)
    user = user_of(request)
    chat = Room.objects.filter(slug=room).first()
    if chat is None:
        raise DenyConnection(f"there is no room {room!r}")

    # From here on the group's messages reach the page.  It ends with the socket, without any code of ours.
    chat.group.add(message.reply_channel)
    is_first = Presence.objects.arrive(chat, user, message.reply_channel.name)

    message.reply_channel.send({"accept": True})
    people = Presence.objects.people(chat)
    missed = chat.history(after=_position(request.GET.get("after", "")))
    reply(message, type="welcome", messages=[said.content for said in missed], people=people)
    if is_first:
        announce(chat, "join", user.get_username(), people)


@consumer(autoretry_for=(OperationalError,), max_retries=3, retry_backoff=True)
def receive(message: Message, room: str) -> None:
    """A page sent a frame: ``{"type": "message", "text": …, "key": …}`` or ``{"type": "ping"}``."""
    presence = (
        Presence.objects.filter(channel=message.reply_channel.name, room__slug=room)
        .select_related("room", "user")
        .first()
    )
    if presence is None:
        # Taken for gone after a long silence: as a new socket the page is let in again.
        raise WebsocketCloseException(UNKNOWN_SOCKET)
    try:
        content = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        reply(message, type="error", text="A frame must be a JSON object.")
    elif content.get("type") == "ping":
        sign_of_life(message, presence)
    elif content.get("type") == "message":
        say(message, presence, content)
    else:
        reply(message, type="error", text="A frame's type must be 'message' or 'ping'.")


@consumer(autoretry_for=(OperationalError,), max_retries=3, retry_backoff=True)
def disconnect(message: Message, room: str) -> None:
    """A socket has closed, for whatever reason: tell the others if its user is gone with it."""
    left = Presence.objects.leave(message.reply_channel.name)
    if left is not None:
        announce(left.room, "leave", left.user.get_username(), Presence.objects.people(left.room))


def say(message: Message, presence: Presence, content: dict[str, Any]) -> None:
    """Post what the page sent, or tell it why not."""
    text, key = content.get("text"), content.get("key", "")
    form = MessageForm({"text": text, "key": key})
    if not (isinstance(text, str) and isinstance(key, str)):
        reply(message, type="error", text="A message's text and key must be strings.")
    elif not form.is_valid():
        problems = " ".join(problem for problems in form.errors.values() for problem in map(str, problems))
        reply(message, type="error", text=problems, key=key if "key" not in form.errors else "")
    else:
        posted, is_new = presence.room.post(presence.user, form.cleaned_data["text"], form.cleaned_data["key"])
        if not is_new:  # the others have it; this page did not learn of it
            reply(message, **posted.content)


def sign_of_life(message: Message, presence: Presence) -> None:
    """The page is still there; those that no such sign came from are not."""
    Presence.objects.filter(pk=presence.pk).update(seen_at=timezone.now())
    if Presence.objects.drop_stale(presence.room):
        presence.room.group.send(frame(type="people", people=Presence.objects.people(presence.room)))
    reply(message, type="pong")


def announce(room: Room, event: str, user: str, people: list[str]) -> None:
    """Tell a room's pages that somebody came (``"join"``) or went (``"leave"``)."""
    room.group.send(frame(type=event, user=user, people=people, at=timezone.now().isoformat()))


def reply(message: Message, **content: Any) -> None:
    """Send a frame to the page that ``message`` came from, and to no other."""
    message.reply_channel.send(frame(**content))


def _position(text: str) -> int:
    """The id of the last message that a page has, from its address; 0 if that is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
