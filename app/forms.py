"""Checks of the users' input, in one place for pages and sockets."""

from __future__ import annotations

import re
import secrets
from typing import Any

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.core.exceptions import ValidationError
from django.utils.text import slugify

from app.commands import check_free, command_of
from app.models import TEXT_LENGTH, Message, Room
from app.models.files import ALT_LENGTH
from app.uploads import attachment_of

#: Names of users that the chat itself creates.
RESERVED = re.compile(r"assistant|(sms|email)-.*", re.IGNORECASE)


def check_encodable(text: str) -> None:
    """Refuse half a character (``"\\ud800"``), which JSON can spell but no database stores."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("This text has invalid characters.") from None


class MessageForm(forms.Form):
    """A message; ``key`` is the page's own name for it, which identifies a repeated message.

    Args:
        args, kwargs: as of every form.
        room: the message's room.
        author: the user who sends it.
    """

    text = forms.CharField(max_length=TEXT_LENGTH, required=False, widget=forms.Textarea, validators=[check_encodable])
    key = forms.RegexField(r"^[-\w]{1,36}$", required=False, widget=forms.HiddenInput)
    file = forms.FileField(required=False, max_length=1000, allow_empty_file=True)
    alt = forms.CharField(max_length=ALT_LENGTH, required=False, validators=[check_encodable])

    def __init__(self, *args: Any, room: Room | None = None, author: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = room
        self._author = author

    def clean(self) -> dict[str, Any]:
        """Check the file, and the command if the text is one; add ``attachment`` and ``kind``."""
        data: dict[str, Any] = super().clean() or {}
        if self.errors:
            return data
        upload, text = data.get("file"), data["text"]
        if not text and not upload:
            raise forms.ValidationError({"text": "Write a message, or choose a file."})
        data["attachment"] = attachment_of(upload, data["alt"]) if upload else None
        data["kind"], _ = command_of(text)
        if data["kind"] and self._room is not None and not self._is_repeated(data["key"]):
            check_free(self._room, data["kind"])
        return data

    def _is_repeated(self, key: str) -> bool:
        """Return whether the message is here already, so that its own job does not refuse it."""
        return bool(key) and Message.objects.filter(room=self._room, author=self._author, key=key).exists()

    @property
    def problems(self) -> str:
        """All errors in one text."""
        return " ".join(problem for problems in self.errors.values() for problem in map(str, problems))


class RoomForm(forms.ModelForm):
    """A new room."""

    class Meta:
        model = Room
        fields = ("name",)

    def clean_name(self) -> str:
        """Return the name, unless another room would have the same address."""
        name: str = self.cleaned_data["name"]
        # A name without any Latin letter or digit leaves nothing for an address.
        self.instance.slug = slugify(name)[:50].strip("-") or f"room-{secrets.token_hex(4)}"
        if Room.objects.filter(slug=self.instance.slug).exists():
            raise ValidationError("There is a room of that name already.")
        return name


class SignupForm(UserCreationForm):
    """A new account."""

    def clean_username(self) -> str:
        """Return the name, unless the chat gives it to a user of its own."""
        name = str(super().clean_username())
        if RESERVED.fullmatch(name):
            raise ValidationError(f"The name {name} is reserved. Choose another one.")
        return name
