"""The test project with the consumers, views and tasks of tests/project/traced.py, traced and reported on.

TEST_DSN says where Sentry's events go; spans are lines of the record ``spans``.
"""

import os

from celery import signals

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS
from tests.project.traced_sdks import start

ROOT_URLCONF = "tests.project.traced"
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.traced.channel_routing"

#: Where the SDKs start: a signal of Celery's by its name, or "settings".
TEST_START = os.environ.get("TEST_START", "worker_process_init")
if TEST_START == "settings":
    start()
else:
    getattr(signals, TEST_START).connect(start, weak=False)
CELERY_TASK_ALWAYS_EAGER = not os.environ.get("TEST_BROKER")  # without a broker, .delay() runs a task in place
