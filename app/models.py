"""Rooms, their messages, and the users in them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from channelsq import Group

#: The number of messages that a page gets when it opens or reconnects.
HISTORY = 50

#: The most characters of a message.
TEXT_LENGTH = 2000

#: Pages send a sign of life every 30 s, and browsers slow that down to a minute in the background.
GONE_AFTER = timedelta(seconds=150)


def frame(**content: Any) -> dict[str, Any]:
    """Return a WebSocket text frame with ``content`` as JSON, ready for a channel or a group."""
    return {"text": json.dumps(content, ensure_ascii=False)}


class Room(models.Model):
    """A place to talk, open to all logged-in users."""

    name = models.CharField(max_length=50, unique=True)
    slug = models.SlugField(max_length=50, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def group(self) -> Group:
        """The sockets of the room's pages.  Any process may send to them."""
        return Group(f"chat-{self.slug}")

    def history(self, after: int = 0) -> list[Message]:
        """Return the last messages, oldest first; only those after the message with the id ``after``."""
        newest = Message.objects.filter(room=self, id__gt=after).select_related("author").order_by("-id")[:HISTORY]
        return list(reversed(newest))

    def post(self, author: Any, text: str, key: str = "") -> tuple[Message, bool]:
        """Store a message and show it to the room; return it, and whether it is new.

        A message that arrives twice, because its sender or a worker was cut off and tried again, has the
        same ``key`` and is posted once.
        """
        message, new = None, True
        if key:
            message, new = Message.objects.get_or_create(room=self, author=author, key=key, defaults={"text": text})
        else:
            message = Message.objects.create(room=self, author=author, text=text)
        if new:
            self.group.send(frame(**message.content))
        return message, new


class Message(models.Model):
    """A message in a room."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_messages")
    text = models.TextField(max_length=TEXT_LENGTH)
    key = models.CharField(max_length=36, blank=True, editable=False)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (models.Index(fields=("room", "id"), name="message_history"),)
        constraints = (
            models.UniqueConstraint(fields=("room", "author", "key"), condition=~Q(key=""), name="message_once"),
        )

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:50]}"

    @property
    def content(self) -> dict[str, Any]:
        """The message in the form for pages."""
        return {
            "type": "message",
            "id": self.pk,
            "key": self.key,
            "user": self.author.get_username(),
            "text": self.text,
            "at": self.sent_at.isoformat(),
        }


class PresenceManager(models.Manager["Presence"]):
    """The users in the rooms.  One user may be in one room with several tabs and devices."""

    def arrive(self, room: Room, user: Any, channel: str) -> bool:
        """Record a socket; return whether its user was not in the room before."""
        with transaction.atomic():
            _lock(room)
            self.drop_stale(room)
            others = self.filter(room=room, user=user).exclude(channel=channel)
            is_first = not others.exists()
            self.update_or_create(channel=channel, defaults={"room": room, "user": user})
        return is_first

    def leave(self, channel: str) -> Presence | None:
        """Remove a socket; return its presence if it was its user's last in the room."""
        presence = self.filter(channel=channel).select_related("room", "user").first()
        if presence is None:
            return None
        with transaction.atomic():
            _lock(presence.room)
            presence.delete()
            is_last = not self.filter(room=presence.room, user=presence.user).exists()
        return presence if is_last else None

    def drop_stale(self, room: Room) -> int:
        """Remove the room's sockets without a recent sign of life; return their number."""
        return self.filter(room=room, seen_at__lt=timezone.now() - GONE_AFTER).delete()[0]

    def people(self, room: Room) -> list[str]:
        """Return the names of the users in the room."""
        names = self.filter(room=room).values_list("user__username", flat=True)
        return list(names.distinct().order_by("user__username")[:200])


class Presence(models.Model):
    """An open socket: the user behind a reply channel, and the room that its page shows."""

    channel = models.CharField(max_length=100, unique=True)
    room = models.ForeignKey(Room, models.CASCADE, related_name="presences")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_presences")
    seen_at = models.DateTimeField(auto_now=True)

    objects = PresenceManager()

    class Meta:
        indexes = (models.Index(fields=("room", "user"), name="presence_people"),)

    def __str__(self) -> str:
        return f"{self.user} in {self.room}"


def _lock(room: Room) -> None:
    """Let only one arrival or departure at a time see who else is in the room."""
    Room.objects.select_for_update().get(pk=room.pk)
