"""Files that users have attached to messages."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import models, transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from app.models.rooms import Message

#: The most characters of a file's name, and of an image's description.
NAME_LENGTH, ALT_LENGTH = 120, 300


def stored_name(attachment: Attachment, filename: str) -> str:
    """Return a random name without a suffix: no server takes the file for a page."""
    return f"chat/{secrets.token_hex(16)}"


class Attachment(models.Model):
    """A file of a message."""

    message = models.OneToOneField(Message, models.CASCADE, related_name="attachment")
    file = models.FileField(upload_to=stored_name)
    name = models.CharField(max_length=NAME_LENGTH)
    size = models.PositiveBigIntegerField()
    #: The type of an image, found in its content; empty for all other files.
    image_type = models.CharField(max_length=20, blank=True)
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
    alt = models.CharField(max_length=ALT_LENGTH, blank=True)

    def __str__(self) -> str:
        return self.name

    @property
    def url(self) -> str:
        """The address of the file."""
        return reverse("file", args=[self.pk])

    @property
    def alternative(self) -> str:
        """The text for people who do not see the image."""
        return self.alt or f"Image {self.name}, without a description"

    @property
    def content(self) -> dict[str, Any]:
        """The file in the form for pages."""
        content: dict[str, Any] = {
            "url": self.url,
            "name": self.name,
            "size": filesizeformat(self.size).replace("\xa0", " "),
        }
        if self.image_type:
            content |= {"alt": self.alternative, "width": self.width, "height": self.height}
        return content


@receiver(post_delete, sender=Attachment)
def delete_file(instance: Attachment, **kwargs: Any) -> None:
    """Delete the stored file of a deleted attachment after the commit."""
    transaction.on_commit(lambda: instance.file.delete(save=False))
