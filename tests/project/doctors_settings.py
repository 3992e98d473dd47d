"""The project on an IPC layer in the directory TEST_IPC."""

import os

from tests.project.settings import *  # noqa: F403
from tests.project.settings import CHANNEL_LAYERS

CHANNEL_LAYERS["default"].update(BACKEND="channelsq.layers.IPCChannelLayer", CONFIG={"path": os.environ["TEST_IPC"]})
