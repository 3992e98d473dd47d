"""The dashboard as a Django application."""

from __future__ import annotations

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """The app ``"channelsq.contrib.dashboard"``."""

    name = "channelsq.contrib.dashboard"
    label = "channelsq_dashboard"
    verbose_name = "Dashboard of channelsq"

    def ready(self) -> None:
        from channelsq.contrib.dashboard import dashboard_checks

        dashboard_checks.register()
