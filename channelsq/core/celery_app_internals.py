"""Celery's record of its apps: the current app, and the settings that its project has chosen.

Private parts of Celery; ``tests/unit/core/test_celery_app_internals.py`` pins them.
Celery is imported at the first call, because a process that only sends messages does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery


def app_of_thread() -> Celery | None:
    """Return the Celery app that this thread has made current; None if it has made none."""
    from celery import _state

    state: Any = _state
    app: Celery | None = state._tls.current_app
    return app


def current_app() -> Celery:
    """Return Celery's current app, or its default one; the app itself, as its proxy has another identity."""
    from celery import current_app

    proxy: Any = current_app
    app: Celery = proxy._get_current_object()
    return app


def is_chosen(app: Celery, setting: str) -> bool:
    """Return whether the project has chosen a setting of a Celery app; Celery's defaults do not count.

    Args:
        app: the app.
        setting: its name in lower case, such as ``"worker_pool"``; it may have been given as ``CELERY_WORKER_POOL``.
    """
    conf: Any = app.conf
    conf.get(setting)  # has the app read its configuration
    # The last of the maps are Celery's own defaults.
    return any(name in mapping for mapping in conf.maps[:-1] for name in conf._to_keys(setting))
