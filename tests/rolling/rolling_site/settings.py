"""Settings from the environment: TEST_BROKER, the broker's URL; TEST_GROUPS, the Redis with the groups."""

import os
import sys

import channelsq

print(f"channelsq is {channelsq.__file__}", file=sys.stderr, flush=True)  # noqa: T201

SECRET_KEY = "for the tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "rolling_site.urls"
INSTALLED_APPS = ["channelsq", "rolling_site"]
CELERY_BROKER_URL = os.environ["TEST_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
_streams = CELERY_BROKER_URL.startswith("redis-streams:")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": f"channelsq.layers.{'RedisChannelLayer' if _streams else 'KombuChannelLayer'}",
        "CONFIG": {"capacity": 1000} if _streams else {"capacity": 1000, "groups_url": os.environ["TEST_GROUPS"]},
        "ROUTING": "rolling_site.routing.channel_routing",
    }
}
