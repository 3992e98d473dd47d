"""The test project with the consumers, views and tasks of tests/project/visitors.py, in two languages."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS, MIDDLEWARE

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "German")]
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.project.visitors"
MIDDLEWARE = [*MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.visitors.channel_routing"
