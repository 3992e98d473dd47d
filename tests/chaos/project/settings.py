"""Settings from the environment: CHAOS_BROKER, CHAOS_LAYER (where channels are, if not on that), CHAOS_GROUPS (Redis,
where the broker is none), and CHAOS_JOURNAL, the folder of the consumers' files."""

import os
from typing import Any

from tests.chaos import LEASE, VISIBILITY

SECRET_KEY = "for the tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
INSTALLED_APPS = ["channelsq", "tests.chaos.project"]
DATABASES: dict[str, Any] = {}
ROOT_URLCONF = "tests.chaos.project.urls"

CELERY_BROKER_URL = os.environ.get("CHAOS_BROKER", "")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "lease": LEASE,
    "max_deaths": 20,  # none of these consumers is to blame
    "visibility_timeout": VISIBILITY,
    "unacked_restore_interval": 0.5,
    "unacked_restore_throttle": 1,
}
_config: dict[str, Any] = {"capacity": 2000}
if "CHAOS_LAYER" in os.environ:
    _config["url"] = os.environ["CHAOS_LAYER"]
    _config["transport_options"] = dict(CELERY_BROKER_TRANSPORT_OPTIONS)
_layer = os.environ.get("CHAOS_LAYER", CELERY_BROKER_URL)
if not CELERY_BROKER_URL.startswith("redis-streams:"):
    CELERY_BROKER_TRANSPORT_OPTIONS |= {"socket_timeout": 5, "read_timeout": 5}
    CELERY_BROKER_HEARTBEAT = 2
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": f"channelsq.layers.{'Redis' if _layer.startswith('redis-streams') else 'Kombu'}ChannelLayer",
        "CONFIG": _config | ({"groups_url": os.environ["CHAOS_GROUPS"]} if _layer.startswith("amqp") else {}),
        "ROUTING": "tests.chaos.project.consumers.channel_routing",
    }
}
