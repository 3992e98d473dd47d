"""The test project with tasks of django.tasks, live by themselves where a frame enqueues them."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS, CHANNEL_LIVE, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.project.framework"]
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.framework.consumers.channel_routing"
CHANNEL_LIVE = {**CHANNEL_LIVE, "from_requests": True}
CELERY_RESULT_EXTENDED = True
TASKS = {
    "default": {"BACKEND": "channelsq.contrib.django_tasks.CeleryBackend", "QUEUES": ["default", "unread"]},
    "here": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
}
