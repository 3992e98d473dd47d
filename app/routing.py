"""The routes from messages to consumers; CHANNEL_LAYERS in the settings names this module.

HTTP requests without a route go to Django's views (``app/urls.py``).
"""

from django.conf import settings

from app import consumers, gateways
from channelsq import include, route

ROOM = r"^/chat/(?P<room>[-\w]+)/$"

channel_routing = [
    include("channelsq.contrib.admin.routing.channel_routing"),
    route("websocket.connect", consumers.connect, path=ROOM),
    route("websocket.receive", consumers.receive, path=ROOM),
    route("websocket.disconnect", consumers.disconnect, path=ROOM),
]

if getattr(settings, "GATEWAY_ROOM", ""):
    channel_routing += [
        route("sms.receive", gateways.text_came),
        route("email.receive", gateways.mail_came),
    ]
