"""Checks of the users' input, in one place for pages and sockets."""

from __future__ import annotations

import secrets

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import slugify

from app.models import TEXT_LENGTH, Room


def check_encodable(text: str) -> None:
    """Refuse half a character (``"\\ud800"``), which JSON can spell but no database stores."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("This text has invalid characters.") from None


class MessageForm(forms.Form):
    """A message; ``key`` is the page's own name for it, which identifies a repeated message."""

    text = forms.CharField(max_length=TEXT_LENGTH, widget=forms.Textarea, validators=[check_encodable])
    key = forms.RegexField(r"^[-\w]{1,36}$", required=False, widget=forms.HiddenInput)


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
