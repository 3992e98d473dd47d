"""The routes of live tasks; include them before the project's own::

channel_routing = [
    include("channelsq.live.routing.channel_routing"),
    …
]
"""

from channelsq.live.consumers import receive
from channelsq.routing import route

channel_routing = [
    route("websocket.receive", receive, text=r'^\{"stream":"channelsq\.task",'),
]
