"""Channels 4's production settings, with both layers of channels_redis; consumers name the one they use."""

from benchmarks.sites.common import (
    ALLOWED_HOSTS,
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
    "DEBUG",
    "INSTALLED_APPS",
    "ROOT_URLCONF",
    "SECRET_KEY",
    "USE_TZ",
]

INSTALLED_APPS = ["channels"]
ASGI_APPLICATION = "benchmarks.sites.peer.asgi.application"
CHANNEL_LAYERS = {
    "core": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [REDIS], "channel_capacity": {SINK: SINK_CAPACITY}},
    },
    "pubsub": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS]},
    },
}
