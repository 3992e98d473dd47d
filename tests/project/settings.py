"""Settings from the environment: TEST_BROKER, TEST_LAYER (where channels are, if not on that), TEST_SHARDS and
TEST_STANDBY (URLs of several servers of the layer), TEST_GROUPS (Redis),
TEST_DATABASE, TEST_VISIBILITY (seconds), TEST_CAPACITY (messages a channel), TEST_DEBUG (1), TEST_DEATHS (that make
a dead letter), TEST_HOSTS (allowed), TEST_SIGNING (of messages), TEST_ENCRYPTION (its keys, with commas between them),
TEST_THREADS and TEST_PROCESSES (of consumers), TEST_STREAMING_RESPONSES; TEST_RERUN (methods of requests that may run
again), TEST_SHUTDOWN (seconds for answers that stream); CHANNEL_MAX_MESSAGES and CHANNEL_MAX_MEMORY; TEST_RECORDS and
TEST_FILE are for views and consumers."""

import os
from typing import Any

SECRET_KEY = "for the tests alone"
DEBUG = os.environ.get("TEST_DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("TEST_HOSTS", "*").split(",")
USE_TZ = True
ROOT_URLCONF = "tests.project.urls"
#: One of its consumers is a coroutine function, on purpose.
SILENCED_SYSTEM_CHECKS = ["channelsq.E008"]

INSTALLED_APPS = [
    "channelsq",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "tests.project",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
STATIC_URL = "static/"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_DATABASE", ":memory:"),
        "CONN_MAX_AGE": 600,
    }
}

CELERY_BROKER_URL = os.environ.get("TEST_BROKER", "")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
if "TEST_RESULTS" in os.environ:
    CELERY_RESULT_BACKEND = os.environ["TEST_RESULTS"]
if "TEST_VISIBILITY" in os.environ:
    # Kombu's Redis transport gives a dead worker's messages to others after this time, ours after the lease.
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "lease": float(os.environ["TEST_VISIBILITY"]),
        "visibility_timeout": float(os.environ["TEST_VISIBILITY"]),
        "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1,
        "max_deaths": int(os.environ.get("TEST_DEATHS", "5")),
    }

if "TEST_RERUN" in os.environ:
    CHANNEL_RERUN_METHODS = os.environ["TEST_RERUN"].split(",")
for _name in ("CHANNEL_MAX_MESSAGES", "CHANNEL_MAX_MEMORY"):
    if _name in os.environ:
        globals()[_name] = int(os.environ[_name])
if "TEST_SHUTDOWN" in os.environ:
    CHANNEL_SHUTDOWN_TIMEOUT = float(os.environ["TEST_SHUTDOWN"])

CHANNEL_EVENTS = True
CHANNEL_LIVE: dict[str, Any] = {"may_cancel": "tests.project.live.may_cancel"}
_config: dict[str, Any] = {"capacity": int(os.environ.get("TEST_CAPACITY", "100"))}
if "TEST_LAYER" in os.environ:  # channels that are not on Celery's broker
    _config["url"] = os.environ["TEST_LAYER"]
    _config["transport_options"] = globals().pop("CELERY_BROKER_TRANSPORT_OPTIONS", {})
if "TEST_SHARDS" in os.environ:  # channels on several servers, which are not Celery's broker
    _config["hosts"] = os.environ["TEST_SHARDS"].split()
    _config["standby"] = os.environ.get("TEST_STANDBY", "").split()
    _config["transport_options"] = globals().pop("CELERY_BROKER_TRANSPORT_OPTIONS", {})
for _name in ("threads", "processes", "streaming_responses"):
    if f"TEST_{_name.upper()}" in os.environ:
        _config[_name] = int(os.environ[f"TEST_{_name.upper()}"])
if "TEST_SIGNING" in os.environ:
    _config["signing"] = os.environ["TEST_SIGNING"]
if "TEST_ENCRYPTION" in os.environ:
    _config["symmetric_encryption_keys"] = os.environ["TEST_ENCRYPTION"].split(",")
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": (
        {
            "BACKEND": "channelsq.layers.RedisChannelLayer",
            "CONFIG": _config,
            "ROUTING": "tests.project.routing.channel_routing",
        }
        if "TEST_SHARDS" in os.environ or os.environ.get("TEST_LAYER", CELERY_BROKER_URL).startswith("redis-streams")
        else {
            "BACKEND": "channelsq.layers.KombuChannelLayer",
            "CONFIG": {"groups_url": os.environ["TEST_GROUPS"], **_config},
            "ROUTING": "tests.project.routing.channel_routing",
        }
        if CELERY_BROKER_URL
        else {
            "BACKEND": "channelsq.layers.InMemoryChannelLayer",
            "CONFIG": _config,
            "ROUTING": "tests.project.routing.channel_routing",
        }
    )
}
