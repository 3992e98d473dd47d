"""The routes from messages to consumers; CHANNEL_LAYERS in the settings names this module.

HTTP requests without a route go to Django's views (``app/urls.py``).
"""

from django.conf import settings

from app import consumers, gateways, jobs, notices
from channelsq import include, route

ROOM = r"^/chat/(?P<room>[-\w]+)/$"
NOTICES = r"^/notices/$"

channel_routing = [
    include("channelsq.contrib.admin.routing.channel_routing"),
    include("channelsq.contrib.dashboard.routing.channel_routing"),
    route("websocket.connect", consumers.connect, path=ROOM),
    route("websocket.receive", consumers.receive, path=ROOM),
    route("websocket.disconnect", consumers.disconnect, path=ROOM),
    route("websocket.connect", notices.connect, path=NOTICES),
    route("websocket.receive", notices.receive, path=NOTICES),
    route("chat.jobs", jobs.begin),
]

if getattr(settings, "GATEWAY_ROOM", ""):
    channel_routing += [
        route("sms.receive", gateways.text_came),
        route("email.receive", gateways.mail_came),
    ]
