"""The live admin as a Django application."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _


class LiveAdminConfig(AppConfig):
    """The app ``"channelsq.contrib.admin"``, which must stand above ``"django.contrib.admin"`` in INSTALLED_APPS.

    It extends the templates of Django's admin.
    """

    name = "channelsq.contrib.admin"
    label = "channelsq_admin"
    verbose_name = _("Live admin")

    def ready(self) -> None:
        from channelsq.contrib.admin import admin_checks

        admin_checks.register()
        if not apps.is_installed("django.contrib.admin"):
            return  # a system check reports it
        from django.contrib import admin
        from django.contrib.admin.apps import AdminConfig

        from channelsq.contrib.admin.saved_changes import watch

        if any(isinstance(config, AdminConfig) for config in apps.get_app_configs()):
            admin.autodiscover()  # the AdminConfig calls it only after this app's ready()
        watch()
