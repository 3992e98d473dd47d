"""The project's Celery app."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.autobahn.site.settings")

app = Celery("autobahn")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
