"""The project: its settings by Django's checks, and its Celery app."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core import checks as django_checks

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.doctor.findings import Finding, Level, ok, warning
from channelsq.layers.contract.broker_urls import shown
from channelsq.routing import consumed_channels
from channelsq.system_checks import checks

#: The level of the checks that counts as an error.
_ERRORS = django_checks.ERROR


def check_settings() -> Iterator[Finding]:
    """Run channelsq's system checks; with those for production unless ``DEBUG`` is on."""
    messages = [*checks.check_layers(None), *checks.check_settings(None)]
    if not settings.DEBUG:
        messages += checks.check_deployment(None)
    found = [each for each in messages if not each.is_silenced()]
    for message in found:
        level = Level.ERROR if message.level >= _ERRORS else Level.WARNING
        yield Finding("settings.checks", level, message.msg, message.hint or "", data={"id": message.id})
    if not found:
        which = "without those of production, as DEBUG is on" if settings.DEBUG else "with those of production"
        yield ok("settings.checks", f"The system checks of channelsq pass ({which}).")


def check_celery() -> Iterator[Finding]:
    """Check the Celery app, and whether it runs tasks eagerly."""
    app = conf.known_celery_app()
    if app is None:
        yield warning(
            "celery.app",
            "No Celery app of the project is loaded, so that this process uses Celery's default one.",
            "Import it in the __init__.py of the project's package, as Celery's guide for Django does: "
            '"from .celery import app as celery_app".',
        )
        app = conf.celery_app()
    else:
        url = conf.celery_broker_url(app)
        broker = shown(url) if url else "no broker of its own"
        yield ok("celery.app", f"The Celery app {app.main!r} is loaded, with {broker}.", name=app.main)
    if app.conf.task_always_eager:
        yield warning(
            "celery.eager",
            "task_always_eager is on: ordinary tasks run in the process that sends them, and no worker sees them.",
            "Set CELERY_TASK_ALWAYS_EAGER only in the settings of tests.",
        )


def routed_channels(alias: str) -> list[str]:
    """Return the channels of a layer that workers consume.

    Raises:
        InvalidChannelLayerError, InvalidRouting: its settings cannot be used.
    """
    router = channel_layers[alias].router
    router.check_default()
    return consumed_channels(router)
