"""The site's consumers; views answer HTTP."""

from channelsq import route

channel_routing = [
    route("websocket.connect", "rolling_site.consumers.connect"),
    route("websocket.receive", "rolling_site.consumers.receive"),
    route("websocket.disconnect", "rolling_site.consumers.disconnect"),
    route("broadcast", "rolling_site.consumers.broadcast"),
]
