"""The project's settings, with a transaction around every request."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS, DATABASES

ROOT_URLCONF = "tests.project.atomic"
DATABASES["default"].update(ATOMIC_REQUESTS=True, OPTIONS={"timeout": 20, "transaction_mode": "IMMEDIATE"})
CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.atomic.channel_routing"
