"""The test project with the consumers and tasks of tests/project/storm.py, and nothing else."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS

CHANNEL_LAYERS["default"]["ROUTING"] = "tests.project.storm.channel_routing"

#: Kombu's stock transport gives back what a lost connection took along.  A sweep that is cut off keeps others from it.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "lease": 5.0,
    "visibility_timeout": 12,
    "unacked_restore_interval": 0.5,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 1,
}
if "transport_options" in CHANNEL_LAYERS["default"]["CONFIG"]:  # of channels that are not on Celery's broker
    CHANNEL_LAYERS["default"]["CONFIG"]["transport_options"] = {"lease": 5.0}
