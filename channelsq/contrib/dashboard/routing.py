"""The routes of the dashboard: ``include("channelsq.contrib.dashboard.routing.channel_routing")`` in your routing."""

import re

from channelsq import conf
from channelsq.contrib.dashboard import dashboard_consumers
from channelsq.routing import route

_PATH = rf"^{re.escape(conf.dashboard_settings().path)}$"

channel_routing = [
    route("websocket.connect", dashboard_consumers.connect, path=_PATH),
    route("websocket.receive", dashboard_consumers.receive, path=_PATH),
    route("websocket.disconnect", dashboard_consumers.disconnect, path=_PATH),
]
