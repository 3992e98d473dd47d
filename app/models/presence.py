"""The users in the rooms."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone

from app.models.rooms import Room

#: Pages send a sign of life every 30 s, and browsers slow that down to a minute in the background.
GONE_AFTER = timedelta(seconds=150)


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
