"""The messages that a user has read in each room, and those that mention a user."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import BigIntegerField, Count, F, Max, OuterRef, Subquery
from django.db.models.functions import Coalesce

from app.models.rooms import Message, Room


class ReadMarkerManager(models.Manager["ReadMarker"]):
    """The markers of all users."""

    def move(self, user: Any, room: Room, last_id: int) -> bool:
        """Record that a user has read a room up to a message; return False if that was known."""
        newest = Message.objects.filter(room=room, id__lte=last_id).aggregate(id=Max("id"))["id"] or 0
        marker, is_new = self.get_or_create(user=user, room=room, defaults={"last_id": newest})
        return is_new or bool(self.filter(pk=marker.pk, last_id__lt=newest).update(last_id=newest))

    def position(self, user: Any, room: Room) -> int:
        """Return the id of the last message that a user has read in a room; 0 before the first visit."""
        return self.filter(user=user, room=room).values_list("last_id", flat=True).first() or 0


class ReadMarker(models.Model):
    """The last message that a user has read in a room."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_read_markers")
    room = models.ForeignKey(Room, models.CASCADE, related_name="read_markers")
    #: Not a foreign key: the message may be deleted.
    last_id = models.BigIntegerField(default=0)

    objects = ReadMarkerManager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "room"), name="read_marker_once"),)

    def __str__(self) -> str:
        return f"{self.user} in {self.room}: {self.last_id}"


class Mention(models.Model):
    """A user whom a message mentions as ``@name``."""

    message = models.ForeignKey(Message, models.CASCADE, related_name="mentions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_mentions")

    class Meta:
        constraints = (models.UniqueConstraint(fields=("message", "user"), name="mention_once"),)

    def __str__(self) -> str:
        return f"@{self.user} in {self.message}"


def unread_mentions(user: Any) -> models.QuerySet[Mention]:
    """Return the mentions that a user has not read, oldest first."""
    mine = Mention.objects.filter(user=user).exclude(message__author=user)
    return mine.filter(message_id__gt=_read(user, "message__room")).order_by("message_id")


def unread_of(user: Any) -> dict[str, Any]:
    """Return the numbers of messages of others that a user has not read: by the room's slug, and of mentions."""
    messages = Message.objects.exclude(author=user).filter(id__gt=_read(user, "room"))
    counted = messages.order_by().values(slug=F("room__slug")).annotate(count=Count("id"))
    return {"rooms": {row["slug"]: row["count"] for row in counted}, "mentions": unread_mentions(user).count()}


def _read(user: Any, room: str) -> Coalesce:
    """Return an expression for the user's position in the room of each row."""
    markers = ReadMarker.objects.filter(user=user, room=OuterRef(room)).values("last_id")
    return Coalesce(Subquery(markers), 0, output_field=BigIntegerField())
