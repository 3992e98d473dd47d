"""Django system checks of the live admin: each finds one mistake in the settings and names the remedy.

=======================  ==================================================================
channelsq_admin.E001     an app that the live admin needs is missing
channelsq_admin.E002     sockets cannot have sessions
channelsq_admin.E003     CHANNEL_ADMIN_PATH or CHANNEL_ADMIN_ALL cannot be used
channelsq_admin.W001     "channelsq.contrib.admin" stands below "django.contrib.admin"
channelsq_admin.W002     the routing has no routes of the live admin, or others hide them
=======================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import ChannelsqError
from channelsq.message import Message
from channelsq.sessions import session_for_reply_channel
from channelsq.system_checks.checks import TAG

_NEEDED = ("channelsq", "django.contrib.admin", "django.contrib.auth", "django.contrib.sessions")

_INCLUDE = 'include("channelsq.contrib.admin.routing.channel_routing")'


def register() -> None:
    """Register the checks with Django."""
    checks.register(check_live_admin, TAG)


def check_live_admin(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return the problems that all checks find."""
    missing = [name for name in _NEEDED if not apps.is_installed(name)]
    if missing:
        return [
            checks.Error(
                f"The live admin needs {', '.join(missing)}, which INSTALLED_APPS does not have.",
                hint="Add it, or take channelsq.contrib.admin out.",
                id="channelsq_admin.E001",
            )
        ]
    try:
        conf.admin_path()
        conf.admin_for_all()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="channelsq_admin.E003")]
    return _check_order() + _check_routing() + _check_sessions()


def _check_order() -> list[CheckMessage]:
    names = [config.name for config in apps.get_app_configs()]
    if names.index("channelsq.contrib.admin") < names.index("django.contrib.admin"):
        return []
    return [
        checks.Warning(
            '"channelsq.contrib.admin" stands below "django.contrib.admin", whose templates hide those of the live '
            "admin: no page is live.",
            hint='Put "channelsq.contrib.admin" above it in INSTALLED_APPS.',
            id="channelsq_admin.W001",
        )
    ]


def _check_routing() -> list[CheckMessage]:
    from channelsq.contrib.admin import admin_consumers
    from channelsq.contrib.admin.saved_changes import CHANNEL

    try:
        layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
        router = layer.router
    except ChannelsqError:
        return []  # another check reports it
    for channel, wanted in (("websocket.connect", admin_consumers.connect), (CHANNEL, admin_consumers.changed)):
        found = router.match(Message({"path": conf.admin_path()}, channel, layer))
        if found is None:
            problem = f"No route claims {channel!r} of the live admin (path {conf.admin_path()}): no page is live."
            hint = f"Add {_INCLUDE} to {settings.CHANNEL_LAYERS[conf.DEFAULT_CHANNEL_LAYER]['ROUTING']!r}."
        elif found[0] is not wanted:
            problem = f"Another route claims {channel!r} of the live admin (path {conf.admin_path()})."
            hint = f"Put {_INCLUDE} above it, or set CHANNEL_ADMIN_PATH to another path."
        else:
            continue
        return [checks.Warning(problem, hint=hint, id="channelsq_admin.W002")]
    return []


def _check_sessions() -> list[CheckMessage]:
    try:
        session_for_reply_channel("websocket.send.check!check")
    except ChannelsqError as error:
        return [checks.Error(f"The live admin's sockets cannot have sessions: {error}", id="channelsq_admin.E002")]
    return []
