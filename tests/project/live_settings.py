"""The test project with the pages of tests/project/live_pages.py, whose tasks are live by themselves."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS, CHANNEL_LIVE, INSTALLED_APPS, MIDDLEWARE

ROOT_URLCONF = "tests.project.live_pages"
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.live_pages.channel_routing"
INSTALLED_APPS = [*INSTALLED_APPS, "django_htmx"]
MIDDLEWARE = [*MIDDLEWARE, "channelsq.live.middleware.LiveTasksMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
CHANNEL_LIVE = {**CHANNEL_LIVE, "from_requests": True}
CHANNEL_USERS = {"join": True}
