"""Django system checks of the dashboard: each finds one mistake in the settings and names the remedy.

===========================  ==================================================================
channelsq_dashboard.E001     an app that the dashboard needs is missing
channelsq_dashboard.E002     sockets cannot have sessions
channelsq_dashboard.E003     CHANNEL_DASHBOARD cannot be used
channelsq_dashboard.W001     the routing has no routes of the dashboard, or others hide them
channelsq_dashboard.W002     the URLs have no page of the dashboard
===========================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import ChannelsqError
from channelsq.message import Message
from channelsq.sessions import session_for_reply_channel
from channelsq.system_checks.checks import TAG

_NEEDED = ("channelsq", "django.contrib.auth", "django.contrib.sessions", "django.contrib.staticfiles")

_INCLUDE = 'include("channelsq.contrib.dashboard.routing.channel_routing")'


def register() -> None:
    """Register the checks with Django."""
    checks.register(check_dashboard, TAG)


def check_dashboard(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return the problems that all checks find; none if the dashboard is off."""
    missing = [name for name in _NEEDED if not apps.is_installed(name)]
    if missing:
        return [
            checks.Error(
                f"The dashboard needs {', '.join(missing)}, which INSTALLED_APPS does not have.",
                hint="Add it, or take channelsq.contrib.dashboard out.",
                id="channelsq_dashboard.E001",
            )
        ]
    try:
        chosen = conf.dashboard_settings()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="channelsq_dashboard.E003")]
    if not chosen.is_on:
        return []
    return _check_urls() + _check_routing(chosen.path) + _check_sessions()


def _check_urls() -> list[CheckMessage]:
    try:
        reverse("channelsq_dashboard:dashboard")
    except NoReverseMatch:
        return [
            checks.Warning(
                "The URLs have no page of the dashboard.",
                hint='Add path("-/dashboard/", include("channelsq.contrib.dashboard.urls")) to your URLs.',
                id="channelsq_dashboard.W002",
            )
        ]
    return []


def _check_routing(path: str) -> list[CheckMessage]:
    from channelsq.contrib.dashboard import dashboard_consumers

    try:
        layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
        router = layer.router
    except ChannelsqError:
        return []  # another check reports it
    found = router.match(Message({"path": path}, "websocket.connect", layer))
    if found is not None and found[0] is dashboard_consumers.connect:
        return []
    if found is None:
        problem = f"No route claims 'websocket.connect' of the dashboard (path {path}): its page stays empty."
        hint = f"Add {_INCLUDE} to {settings.CHANNEL_LAYERS[conf.DEFAULT_CHANNEL_LAYER]['ROUTING']!r}."
    else:
        problem = f"Another route claims 'websocket.connect' of the dashboard (path {path})."
        hint = f'Put {_INCLUDE} above it, or set CHANNEL_DASHBOARD["path"] to another path.'
    return [checks.Warning(problem, hint=hint, id="channelsq_dashboard.W001")]


def _check_sessions() -> list[CheckMessage]:
    try:
        session_for_reply_channel("websocket.send.check!check")
    except ChannelsqError as error:
        return [checks.Error(f"The dashboard's sockets cannot have sessions: {error}", id="channelsq_dashboard.E002")]
    return []
