"""The users whom ``manage.py demo`` creates, and the log-in page offers in development."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import get_user_model

PASSWORD = "channelsq-demo"  # noqa: S105 - in the source, hence the checks for DEBUG

#: The users of the chat; the command creates an admin as well.
NAMES = ("alice", "bob")


def offered() -> list[str]:
    """Return the names for the log-in page; none in production, or before the command has run."""
    if not settings.DEBUG:
        return []
    users = get_user_model().objects.filter(username__in=NAMES, is_active=True)
    return list(users.order_by("username").values_list("username", flat=True))
