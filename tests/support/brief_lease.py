"""The demo's settings with a broker that notices a dead worker after two seconds."""

from config.settings import *  # noqa: F403

CELERY_BROKER_TRANSPORT_OPTIONS = {"lease": 2}
