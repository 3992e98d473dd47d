"""The admin sites and ModelAdmins that are live."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models import Model

from channelsq import conf


class LiveAdminMixin:
    """A mixin that makes a ModelAdmin live; ``live_admin = False`` excludes a ModelAdmin.

    Unless ``CHANNEL_ADMIN_ALL`` is False, every ModelAdmin is live without the mixin.
    """

    #: Whether the pages of this ModelAdmin are live.
    live_admin = True


def is_live(model_admin: Any) -> bool:
    """Return whether the pages of a ModelAdmin are live."""
    return bool(getattr(model_admin, "live_admin", conf.admin_for_all()))


def admin_of(site_name: str, label: str) -> Any:
    """Return the live ModelAdmin of a model on the admin site with this name; None if there is none."""
    site = _site(site_name)
    if site is None:
        # Only the URLs may import the site's module, and this process may not have loaded them yet.
        from django.urls import get_resolver

        _ = get_resolver().url_patterns
        site = _site(site_name)
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        return None
    if site is None or not site.is_registered(model):
        return None
    model_admin = site.get_model_admin(model)
    return model_admin if is_live(model_admin) else None


def _site(name: str) -> Any:
    from django.contrib.admin.sites import all_sites

    return next((site for site in all_sites if site.name == name), None)


def live_models() -> set[type[Model]]:
    """Return the concrete models with a live ModelAdmin on any site."""
    from django.contrib.admin.sites import all_sites

    return {
        concrete(model)
        for site in all_sites
        for model in apps.get_models()
        if site.is_registered(model) and is_live(site.get_model_admin(model))
    }


def concrete(model: type[Model]) -> type[Model]:
    """Return the model whose table has a model's objects; it differs for proxy models."""
    return model._meta.concrete_model or model


def with_parents(model: type[Model]) -> list[type[Model]]:
    """Return the concrete models in whose tables an object has a row: its own model and the parents."""
    return [concrete(model), *(concrete(parent) for parent in concrete(model)._meta.get_parent_list())]
