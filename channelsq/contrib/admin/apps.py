"""The live admin as a Django application."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _


class LiveAdminConfig(AppConfig):
    """``"channelsq.contrib.admin"`` in INSTALLED_APPS, above ``"django.contrib.admin"``, whose templates it extends."""

    name = "channelsq.contrib.admin"
    label = "channelsq_admin"
    verbose_name = _("Live admin")

    def ready(self) -> None:
        from channelsq.contrib.admin import admin_checks

        admin_checks.register()
        if not apps.is_installed("django.contrib.admin"):
            return  # a check says so
        from django.contrib import admin
        from django.contrib.admin.apps import AdminConfig

        from channelsq.contrib.admin.saved_changes import watch

        if any(isinstance(config, AdminConfig) for config in apps.get_app_configs()):
            admin.autodiscover()  # which it does by itself, after this
        watch()
