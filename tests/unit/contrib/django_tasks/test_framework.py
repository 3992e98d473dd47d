"""The backend can be imported with every Django, and is refused by one without the framework."""

from __future__ import annotations

import django
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from channelsq.contrib.django_tasks import CeleryBackend
from channelsq.contrib.django_tasks.framework import HAS_TASKS
from channelsq.system_checks import checks

TASKS = {
    "default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"},
    "celery": {"BACKEND": "channelsq.contrib.django_tasks.CeleryBackend"},
}


def test_a_django_without_the_framework_is_named() -> None:
    if HAS_TASKS:
        assert CeleryBackend("celery", {}).queues == {"default"}
    else:
        with pytest.raises(ImproperlyConfigured, match=rf"needs django\.tasks, so Django 6\.0.*{django.__version__}"):
            CeleryBackend("celery", {})


def test_e010_tasks_on_a_django_without_the_framework() -> None:
    with override_settings(TASKS=TASKS):
        found = [each for each in checks.check_settings(None) if each.id == "channelsq.E010"]
    assert [each.msg for each in found] == (
        [] if HAS_TASKS else [f"TASKS['celery'] needs django.tasks, and this is Django {django.get_version()}."]
    )
