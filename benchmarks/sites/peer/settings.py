"""Channels 4's production settings, with both layers of channels_redis; consumers name the one they use."""

from benchmarks.sites.common import (
    ALLOWED_HOSTS,
    DATABASES,
    DEBUG,
    REDIS,
    ROOT_URLCONF,
    SECRET_KEY,
    SINK,
    SINK_CAPACITY,
    USE_TZ,
)

__all__ = [
    "ALLOWED_HOSTS",
    "ASGI_APPLICATION",
    "CHANNEL_LAYERS",
    "DATABASES",
    "DEBUG",
    "INSTALLED_APPS",
    "ROOT_URLCONF",
    "SECRET_KEY",
    "USE_TZ",
]

INSTALLED_APPS = ["channels"]
ASGI_APPLICATION = "benchmarks.sites.peer.asgi.application"

# redis-py 8 gives up a read after 5 seconds by itself, which is as long as the core layer waits for a message: idle
# sockets would be closed at random.
_HOST = {"address": REDIS, "socket_timeout": None}

CHANNEL_LAYERS = {
    "core": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [_HOST], "channel_capacity": {SINK: SINK_CAPACITY}},
    },
    "pubsub": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [_HOST]},
    },
}
