"""In memory unless there is a broker; messages may be as large as the suite's are."""

import os

SECRET_KEY = "for the tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
INSTALLED_APPS = ["channelsq"]

#: The largest has 16 MiB; the interface server's own limit is an option of its command line.
LARGEST = 16 * 1024 * 1024
_LIMIT = LARGEST + 64 * 1024

CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

if broker := os.environ.get("AUTOBAHN_REDIS"):
    CELERY_BROKER_URL = broker.replace("redis://", "redis-streams://")
    _layer = "channelsq.layers.RedisChannelLayer"
else:
    _layer = "channelsq.layers.InMemoryChannelLayer"

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": _layer,
        "CONFIG": {"message_size_limit": _LIMIT},
        "ROUTING": "tests.autobahn.site.routing.channel_routing",
    }
}
