"""The settings, for a broker whose loss is noticed in seconds: TEST_HEARTBEAT, TEST_TIMEOUT."""

import os

from tests.project.settings import *  # noqa: F403

CELERY_BROKER_HEARTBEAT = int(os.environ.get("TEST_HEARTBEAT", "1"))
_timeout = float(os.environ.get("TEST_TIMEOUT", "2"))
CELERY_BROKER_TRANSPORT_OPTIONS = {"read_timeout": _timeout, "socket_timeout": _timeout}
