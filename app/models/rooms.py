"""Rooms and their messages."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.urls import reverse

from app.mentions import users_named
from app.models.frames import frame
from channelsq import Group, User

#: The number of messages that a page gets when it opens, reconnects or asks for older ones.
HISTORY = 50

#: The most characters of a message.
TEXT_LENGTH = 2000

#: The most characters of a message in a notice on another page.
EXCERPT = 140

#: The group of the sockets of all pages: they learn in which rooms something is said.
EVERYWHERE = "chat-everywhere"


class Room(models.Model):
    """A place to talk, open to all logged-in users."""

    name = models.CharField(max_length=50, unique=True)
    slug = models.SlugField(max_length=50, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """Return the address of the room's page."""
        return reverse("room", args=[self.slug])

    @property
    def group(self) -> Group:
        """The sockets of the room's pages.  Any process may send to them."""
        return Group(f"chat-{self.slug}")

    def history(self, after: int = 0, before: int = 0) -> list[Message]:
        """Return up to ``HISTORY`` messages, oldest first.

        Args:
            after: only messages after the one with this id.
            before: only messages before the one with this id; 0 for the newest messages.
        """
        found = Message.objects.filter(room=self, id__gt=after)
        if before:
            found = found.filter(id__lt=before)
        return list(reversed(with_details(found).order_by("-id")[:HISTORY]))

    def has_between(self, after: int, before: int) -> bool:
        """Return whether the room has messages between two others, whose ids are given."""
        return Message.objects.filter(room=self, id__gt=after, id__lt=before).exists()

    def post(
        self,
        author: Any,
        text: str,
        key: str = "",
        *,
        source: str = "",
        attachment: Any = None,
        immediately: bool = False,
    ) -> tuple[Message, bool]:
        """Store a message and show it to the room; return it, and whether it is new.

        A message that arrives twice, because its sender or a worker was cut off and tried again, has the
        same ``key`` and is posted once.

        Args:
            author: the user.
            text: the text; empty only with an attachment.
            key: the name of the message for its page or task.
            source: one of ``Message.Source``.
            attachment: an unsaved :class:`app.models.Attachment`.
            immediately: whether to send before the end of the consumer, as a task does that runs in place.
        """
        fields = {"text": text, "source": source}
        with transaction.atomic():
            message, new = None, True
            if key:
                message, new = Message.objects.get_or_create(room=self, author=author, key=key, defaults=fields)
            else:
                message = Message.objects.create(room=self, author=author, **fields)
            if new and attachment is not None:
                attachment.message = message
                attachment.save()
            mentioned = users_named(text) if new and source != Message.Source.IMPORT else []
            for user in mentioned:
                message.mentions.create(user=user)
        if new:
            self._announce(message, mentioned, immediately)
        return message, new

    def _announce(self, message: Message, mentioned: list[Any], immediately: bool) -> None:
        """Show a new message in the room, and tell pages elsewhere about it."""
        about = {"room": self.slug, "id": message.pk, "user": message.author.get_username()}
        self.group.send(frame(**message.content), immediately)
        Group(EVERYWHERE).send(frame(type="said", text=message.excerpt, **about), immediately)
        for user in mentioned:
            if user.pk != message.author.pk:
                told = frame(type="mention", name=self.name, url=message.url, text=message.excerpt, **about)
                User(user.pk).send(told, immediately)


class Message(models.Model):
    """A message in a room."""

    #: Set by the models that refer to this one: the mentions in the text, and the file if there is one.
    mentions: Any
    attachment: Any

    class Source(models.TextChoices):
        """The origin of a message that no page has sent."""

        PAGE = "", "page"
        SMS = "sms", "SMS"
        MAIL = "email", "mail"
        IMPORT = "import", "imported"
        ASSISTANT = "assistant", "program"

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_messages")
    text = models.TextField(max_length=TEXT_LENGTH, blank=True)
    key = models.CharField(max_length=36, blank=True, editable=False)
    source = models.CharField(max_length=9, choices=Source, default=Source.PAGE, blank=True, editable=False)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (models.Index(fields=("room", "id"), name="message_history"),)
        constraints = (
            models.UniqueConstraint(fields=("room", "author", "key"), condition=~Q(key=""), name="message_once"),
        )

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:50]}"

    @property
    def mentioned(self) -> list[str]:
        """The names of the users whom the text mentions."""
        return [mention.user.get_username() for mention in self.mentions.all()]

    @property
    def excerpt(self) -> str:
        """The beginning of the text, or the name of the file."""
        text = self.text or self.attachment.name
        return text if len(text) <= EXCERPT else f"{text[:EXCERPT].rstrip()} …"

    @property
    def url(self) -> str:
        """The address of a page that shows the message."""
        newer = Message.objects.filter(room=self.room, id__gt=self.pk)[:HISTORY].count()
        query = f"?before={self.pk + 1}" if newer == HISTORY else ""
        return f"{self.room.get_absolute_url()}{query}#message-{self.pk}"

    @property
    def content(self) -> dict[str, Any]:
        """The message in the form for pages; keys without a value are left out."""
        content = {
            "type": "message",
            "id": self.pk,
            "key": self.key,
            "user": self.author.get_username(),
            "text": self.text,
            "at": self.sent_at.isoformat(),
        }
        if self.source:
            content |= {"source": self.source, "badge": self.badge}
        if self.mentioned:
            content["mentions"] = self.mentioned
        if hasattr(self, "attachment"):
            content["file"] = self.attachment.content
        return content

    @property
    def badge(self) -> str:
        """The origin in words; empty for a message of a page."""
        return str(Message.Source(self.source).label) if self.source else ""


def with_details(messages: QuerySet[Message]) -> QuerySet[Message]:
    """Return messages with all that their pages show, in two queries."""
    return messages.select_related("author", "attachment").prefetch_related("mentions__user")
