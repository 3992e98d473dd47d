"""channelsq as a Django application."""

from __future__ import annotations

from django.apps import AppConfig


class ChannelsqConfig(AppConfig):
    """``"channelsq"`` in INSTALLED_APPS; keep it above ``django.contrib.staticfiles``, whose runserver it replaces."""

    name = "channelsq"
    verbose_name = "channelsq"

    def ready(self) -> None:
        from channelsq import checks, conf

        checks.register()
        conf.remember_celery_app()
