"""The routes of the live admin: ``include("channelsq.contrib.admin.routing.channel_routing")`` in your routing."""

import re

from channelsq import conf
from channelsq.contrib.admin import admin_consumers
from channelsq.contrib.admin.saved_changes import CHANNEL
from channelsq.routing import route

_PATH = rf"^{re.escape(conf.admin_path())}$"

channel_routing = [
    route("websocket.connect", admin_consumers.connect, path=_PATH),
    route("websocket.receive", admin_consumers.receive, path=_PATH),
    route("websocket.disconnect", admin_consumers.disconnect, path=_PATH),
    route(CHANNEL, admin_consumers.changed),
]
