"""``{% load channelsq %}``."""

from __future__ import annotations

from typing import Any

from django import template
from django.template import Context

register = template.Library()


@register.simple_tag(takes_context=True)
def channel_token(context: Context, path: str | None = None) -> str:
    """Return a token for the user of the request: ``{% channel_token %}``, see :mod:`channelsq.security.tokens`.

    ``{% channel_token path="/chat/tea/" %}`` opens that path alone.  The result is empty without a login.

    Raises:
        ValueError: the template has no ``request``.
    """
    from channelsq.security.tokens import make_token

    request: Any = context.get("request")
    if request is None:
        raise ValueError(
            "{% channel_token %} needs the request: render the template with it, and put "
            "'django.template.context_processors.request' among the context processors"
        )
    if not getattr(getattr(request, "user", None), "is_authenticated", False):
        return ""
    return make_token(request, path=path)
