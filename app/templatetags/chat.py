"""Template filters of the chat."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from app.mentions import parts
from app.models import Message, unread_of

register = template.Library()


@register.filter
def with_mentions(message: Message) -> SafeString:
    """Return the text of a message with its mentions marked; all of it is escaped."""
    return format_html_join("", "{}", ((_marked(text, name),) for text, name in parts(message.text, message.mentioned)))


@register.simple_tag
def unread(user: Any) -> dict[str, Any]:
    """Return the numbers of unread messages by room, their ``total``, and the number of unread mentions."""
    is_known = getattr(user, "is_authenticated", False)  # an error page may have no user
    found: dict[str, Any] = unread_of(user) if is_known else {"rooms": {}, "mentions": 0}
    return {**found, "total": sum(found["rooms"].values())}


@register.filter
def of_room(counts: dict[str, int], slug: str) -> int:
    """Return the number of a room."""
    return counts.get(slug, 0)


@register.filter
def capped(count: int) -> str:
    """Return a number for a badge, of at most two digits."""
    return str(count) if count < 100 else "99+"


def _marked(text: str, name: str) -> str:
    return format_html('<mark class="mention" data-name="{}">{}</mark>', name, text) if name else text
