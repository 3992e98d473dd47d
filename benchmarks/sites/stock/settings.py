"""The settings of the project without channelsq."""

import os

from benchmarks.sites.common import ALLOWED_HOSTS, DATABASES, DEBUG, ROOT_URLCONF, SECRET_KEY, USE_TZ

__all__ = [
    "ALLOWED_HOSTS",
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP",
    "CELERY_BROKER_URL",
    "CELERY_TASK_IGNORE_RESULT",
    "DATABASES",
    "DEBUG",
    "INSTALLED_APPS",
    "ROOT_URLCONF",
    "SECRET_KEY",
    "USE_TZ",
]

INSTALLED_APPS = ["benchmarks.sites"]

CELERY_BROKER_URL = os.environ["BENCH_CELERY_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
