"""The project's Celery app, as a user writes it."""

import os

from celery import Celery

import channelsq.transport  # noqa: F401 - registers redis-streams://

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.sites.ours.settings")

app = Celery("benchmarks")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
