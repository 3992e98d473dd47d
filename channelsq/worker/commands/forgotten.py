"""A warning that a worker reads no channels although the project has channel layers.

Where ``"channelsq"`` is not in ``INSTALLED_APPS``, or the Celery app discovers no tasks, a worker loads
only this module of channelsq, through ``celery``'s command line.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import signals

logger = logging.getLogger("channelsq.worker")


def install() -> None:
    """Check workers that this process starts; repeated calls are harmless."""
    signals.celeryd_after_setup.connect(_warn, weak=False, dispatch_uid="channelsq.forgotten")


def _warn(instance: Any, **kwargs: Any) -> None:
    if _has_layers() and not _is_set_up(instance.app):
        logger.warning("this worker reads no channels: %s", _reason(), extra={"action": "channels_forgotten"})


def _has_layers() -> bool:
    """Return whether this is a Django project with ``CHANNEL_LAYERS``."""
    if "django.conf" not in sys.modules:
        return False
    from django.conf import settings

    return settings.configured and bool(getattr(settings, "CHANNEL_LAYERS", None))


def _is_set_up(app: Any) -> bool:
    setup = sys.modules.get("channelsq.worker.setup")
    return setup is not None and setup.is_installed(app)


def _reason() -> str:
    from channelsq import conf

    if conf.is_forgotten_in_apps():
        return conf.NOT_INSTALLED
    return "its Celery app has not found channelsq.tasks; call app.autodiscover_tasks() where you make the app"
