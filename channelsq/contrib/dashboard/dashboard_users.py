"""The permissions of the dashboard."""

from __future__ import annotations

from typing import Any

from channelsq import conf


def may_look(user: Any) -> bool:
    """Return whether a user may see the dashboard."""
    return bool(user.is_active and user.is_staff)


def may_act(user: Any) -> bool:
    """Return whether a user may replay and delete dead letters."""
    permission = conf.dashboard_settings().permission
    return may_look(user) and bool(user.is_superuser or (permission and user.has_perm(permission)))
