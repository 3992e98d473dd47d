"""The test project with the pages of tests/project/pages.py; TEST_NPM is a folder with packages of npm, TEST_MAY_JOIN
and TEST_PAGE_AGE (seconds) are settings of live pages."""

import os

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CELERY_BROKER_URL, CHANNEL_LAYERS, CHANNEL_LIVE

ROOT_URLCONF = "tests.project.pages"
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.pages.channel_routing"
CHANNEL_USERS = {"join": True}
CHANNEL_LIVE = {
    **CHANNEL_LIVE,
    "page_age": float(os.environ.get("TEST_PAGE_AGE", "3600")),
    "may_join": os.environ.get("TEST_MAY_JOIN", ""),
}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
if not CELERY_BROKER_URL:  # the worker is in the interface server
    CELERY_TASK_ALWAYS_EAGER = True
if "TEST_NPM" in os.environ:
    STATICFILES_DIRS = [("npm", os.environ["TEST_NPM"])]
if "TEST_IPC" in os.environ:
    CHANNEL_LAYERS["default"]["BACKEND"] = "channelsq.layers.IPCChannelLayer"
    CHANNEL_LAYERS["default"]["CONFIG"] = {"path": os.environ["TEST_IPC"]}
