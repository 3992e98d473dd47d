"""The site's Celery app."""

import os
import sys

from celery import Celery
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rolling_site.settings")

app = Celery("rolling")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect(weak=False)
def say_ready(**kwargs: object) -> None:
    """Celery itself says it at INFO alone."""
    print("ready.", file=sys.stderr, flush=True)  # noqa: T201
