"""The consumers of the rooms' sockets.

A consumer is a plain function.  Each of its runs is a Celery task, so Celery's retries, signals and tools
apply to it.  Its sends leave when it returns, and are dropped if it raises.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.core.cache import cache
from django.db import OperationalError
from django.utils import timezone

from app import notices
from app.forms import MessageForm
from app.handshake import own_pages_only, request_of, user_of
from app.models import Job, Presence, ReadMarker, Room, frame
from app.posting import post
from channelsq import consumer
from channelsq.auth import http_session_user
from channelsq.exceptions import DenyConnection, WebsocketCloseException
from channelsq.message import Message

#: The close code that tells a page to connect again.
UNKNOWN_SOCKET = 4001

#: Seconds in which at most one sign of typing of a socket is passed on; pages send one every three seconds.
TYPING_EVERY = 1


@own_pages_only
@http_session_user
def connect(message: Message, room: str) -> None:
    """Accept a page's socket, send it the missed messages, and tell the others who arrived."""
    request = request_of(message)
    user = user_of(message)
    chat = Room.objects.filter(slug=room).first()
    if chat is None:
        raise DenyConnection(f"there is no room {room!r}")

    # From here on the page gets the group's messages.  The membership ends with the socket, without further code.
    chat.group.add(message.reply_channel)
    is_first = Presence.objects.arrive(chat, user, message.reply_channel.name)

    message.reply_channel.send({"accept": True})
    people = Presence.objects.people(chat)
    position = _position(request.GET.get("after", ""))
    missed = chat.history(after=position)
    jobs = Job.objects.running().filter(room=chat).exclude(ticket="").select_related("author")
    running = [{**job.content, "ticket": job.ticket} for job in jobs]
    welcome = {"messages": [said.content for said in missed], "people": people, "jobs": running}
    if position and missed and chat.has_between(position, missed[0].pk):
        welcome["gap"] = True  # more was missed than fits: what the page has is older than that
    reply(message, type="welcome", **welcome)
    notices.begin(message, user)
    if is_first:
        announce(chat, "join", user.get_username(), people)


@consumer(autoretry_for=(OperationalError,), max_retries=3, retry_backoff=True)
def receive(message: Message, room: str) -> None:
    """Handle a page's frame, such as ``{"type": "message", "text": …, "key": …}``; see ``FRAMES``."""
    presence = (
        Presence.objects.filter(channel=message.reply_channel.name, room__slug=room)
        .select_related("room", "user")
        .first()
    )
    if presence is None:
        # Dropped as stale after a long silence: the page may come back with a new socket.
        raise WebsocketCloseException(UNKNOWN_SOCKET)
    try:
        content = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        reply(message, type="error", text="A frame must be a JSON object.")
        return
    kind = content.get("type")
    handle = FRAMES.get(kind) if isinstance(kind, str) else None
    if handle is None:
        known = " or ".join(f"'{each}'" for each in FRAMES)
        reply(message, type="error", text=f"A frame's type must be {known}.")
    else:
        handle(message, presence, content)


@consumer(autoretry_for=(OperationalError,), max_retries=3, retry_backoff=True)
def disconnect(message: Message, room: str) -> None:
    """Tell the others when a user's last socket has closed, for any reason."""
    left = Presence.objects.leave(message.reply_channel.name)
    if left is not None:
        announce(left.room, "leave", left.user.get_username(), Presence.objects.people(left.room))


def say(message: Message, presence: Presence, content: dict[str, Any]) -> None:
    """Post the page's message, or tell the page why not."""
    text, key = content.get("text"), content.get("key", "")
    form = MessageForm({"text": text, "key": key}, room=presence.room, author=presence.user)
    if not (isinstance(text, str) and isinstance(key, str)):
        reply(message, type="error", text="A message's text and key must be strings.")
    elif not form.is_valid():
        reply(message, type="error", text=form.problems, key=key if "key" not in form.errors else "")
    else:
        posted, is_new = post(presence.room, presence.user, form)
        if not is_new:  # the others have it; this page had no confirmation
            reply(message, **posted.content)


def sign_of_life(message: Message, presence: Presence, content: dict[str, Any]) -> None:
    """Record that the page is alive; drop the pages that have sent no such sign."""
    Presence.objects.filter(pk=presence.pk).update(seen_at=timezone.now())
    if Presence.objects.drop_stale(presence.room):
        presence.room.group.send(frame(type="people", people=Presence.objects.people(presence.room)))
    reply(message, type="pong")


def show_typing(message: Message, presence: Presence, content: dict[str, Any]) -> None:
    """Tell the room that the page's user is typing: not stored, and dropped if it comes too often."""
    if cache.add(f"typing-{message.reply_channel.name}", True, TYPING_EVERY):
        told = frame(type="typing", user=presence.user.get_username())
        presence.room.group.send({**told, "droppable": True})


def mark_read(message: Message, presence: Presence, content: dict[str, Any]) -> None:
    """Record the last message that the user has seen, and correct the numbers in all pages of the user."""
    last_id = content.get("id")
    if isinstance(last_id, bool) or not isinstance(last_id, int) or not 0 <= last_id < 2**63:
        reply(
            message, type="error", text=f"The id of a read message must be a whole number, not {str(last_id)[:50]!r}."
        )
    elif ReadMarker.objects.move(presence.user, presence.room, last_id):
        notices.tell_unread(presence.user)


#: The functions for the types of frames.
FRAMES: dict[str, Callable[[Message, Presence, dict[str, Any]], None]] = {
    "message": say,
    "ping": sign_of_life,
    "typing": show_typing,
    "read": mark_read,
}


def announce(room: Room, event: str, user: str, people: list[str]) -> None:
    """Tell a room's pages that a user arrived (``"join"``) or left (``"leave"``)."""
    room.group.send(frame(type=event, user=user, people=people, at=timezone.now().isoformat()))


def reply(message: Message, **content: Any) -> None:
    """Send a frame only to the page that sent ``message``."""
    message.reply_channel.send(frame(**content))


def _position(text: str) -> int:
    """Return the id of the last message that a page has, from its address; 0 if it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
