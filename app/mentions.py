"""Names of users in texts: ``@alice``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from django.contrib.auth import get_user_model

#: A name after an ``@`` that is not part of a mail address.
_NAME = re.compile(r"(?<![\w@.+-])@([\w.@+-]{1,150})")

#: The most users whom one message reaches.
MOST = 10


def users_named(text: str) -> list[Any]:
    """Return the active users whom a text mentions, at most ``MOST``."""
    names = {name for found in _NAME.findall(text) for name in (found, found.rstrip(".@+-"))}
    users = get_user_model().objects.filter(username__in=names, is_active=True) if names else ()
    return list(users[:MOST] if names else ())


def parts(text: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text: plain text with an empty name, or ``@name`` with the user's name."""
    end = 0
    for found in _NAME.finditer(text):
        name = found[1] if found[1] in names else found[1].rstrip(".@+-")
        if name in names:
            yield text[end : found.start()], ""
            end = found.start() + 1 + len(name)
            yield text[found.start() : end], name
    yield text[end:], ""
