"""channelsq's production settings: channels on Redis streams, everything else as it is by default.

``BENCH_CELERY_BROKER`` is Celery's broker, which need not be the Redis of the channels; ``BENCH_LAYER`` is another
broker for the channels, and ``BENCH_SECOND_REDIS`` another Redis that carries half of them; ``BENCH_TIME_LIMIT`` gives
every task a time limit; ``BENCH_SENTRY`` starts Sentry's SDK, for a server that takes no events.
"""

import os

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
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP",
    "CELERY_BROKER_URL",
    "CELERY_TASK_IGNORE_RESULT",
    "CELERY_TASK_TIME_LIMIT",
    "CHANNEL_LAYERS",
    "DATABASES",
    "DEBUG",
    "INSTALLED_APPS",
    "ROOT_URLCONF",
    "SECRET_KEY",
    "USE_TZ",
]

INSTALLED_APPS = ["channelsq", "benchmarks.sites", "benchmarks.sites.ours"]

CELERY_BROKER_URL = os.environ["BENCH_CELERY_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = int(os.environ.get("BENCH_TIME_LIMIT", 0)) or None

_LAYER = os.environ.get("BENCH_LAYER", "")

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": f"channelsq.layers.{'KombuChannelLayer' if _LAYER else 'RedisChannelLayer'}",
        "CONFIG": {
            **({"url": _LAYER, "groups_url": REDIS} if _LAYER else {"url": REDIS.replace("redis:", "redis-streams:")}),
            "channel_capacity": {SINK: SINK_CAPACITY},
        },
        "ROUTING": "benchmarks.sites.ours.routing.channel_routing",
    }
}

if _LAYER.startswith("ipc://"):
    CHANNEL_LAYERS["default"] |= {
        "BACKEND": "channelsq.layers.IPCChannelLayer",
        "CONFIG": {"prefix": _LAYER.removeprefix("ipc://"), "channel_capacity": {SINK: SINK_CAPACITY}},
    }

if "BENCH_SECOND_REDIS" in os.environ:
    CHANNEL_LAYERS["default"]["CONFIG"] = {
        "hosts": [REDIS, os.environ["BENCH_SECOND_REDIS"]],
        "channel_capacity": {SINK: SINK_CAPACITY},
    }

if os.environ.get("BENCH_SENTRY"):
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", integrations=[CeleryIntegration()])
