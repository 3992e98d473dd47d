"""Which consumer handles which message; CHANNEL_LAYERS in the settings points here.

HTTP requests that nothing here claims go to Django's views (``app/urls.py``).
"""

from app import consumers
from channelsq import route

ROOM = r"^/chat/(?P<room>[-\w]+)/$"

channel_routing = [
    route("websocket.connect", consumers.connect, path=ROOM),
    route("websocket.receive", consumers.receive, path=ROOM),
    route("websocket.disconnect", consumers.disconnect, path=ROOM),
]
