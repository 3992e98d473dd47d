"""Settings from the environment: TEST_SETTINGS, some settings as JSON."""

import json
import os

SECRET_KEY = "for the tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.gateways_project.settings"
urlpatterns: list[object] = []
INSTALLED_APPS = ["channelsq"]
globals().update(json.loads(os.environ["TEST_SETTINGS"]))
