"""Settings from the environment: TEST_LAYERS, the CHANNEL_LAYERS as JSON without their ROUTING; TEST_BROKER, a URL."""

import json
import os

import channelsq.ipc

SECRET_KEY = "for the tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.layers_project.routing"
INSTALLED_APPS = ["channelsq", "tests.layers_project"]
channelsq.ipc.register()  # for Celery's commands that load no application
CELERY_BROKER_URL = os.environ.get("TEST_BROKER", "")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CHANNEL_LAYERS = {
    alias: {**entry, "ROUTING": f"tests.layers_project.routing.{alias}_routing"}
    for alias, entry in json.loads(os.environ["TEST_LAYERS"]).items()
}
