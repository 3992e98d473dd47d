"""The test project with the consumers and views of tests/project/users.py."""

import os

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS

ROOT_URLCONF = "tests.project.users"
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.users.channel_routing"
CHANNEL_USERS = {"join": True, "disconnect_on_logout": True, "disconnect_on_password_change": True}
CELERY_BEAT_SCHEDULE = {
    "tick": {"task": "channelsq.send_to_group", "schedule": 0.3, "args": ["delayed", {"text": '{"tick": true}'}]}
}
if "TEST_IPC" in os.environ:
    CHANNEL_LAYERS["default"]["BACKEND"] = "channelsq.layers.IPCChannelLayer"
    CHANNEL_LAYERS["default"]["CONFIG"] = {"path": os.environ["TEST_IPC"]}
