"""Which consumer gets what; WebSockets to ``/echo/`` are accepted because no route refuses them."""

from channelsq import route

FAN = r"^/fan/(?P<group>[-\w]+)/$"

channel_routing = [
    route("websocket.connect", "benchmarks.sites.ours.consumers.join", path=FAN),
    route("websocket.receive", "benchmarks.sites.ours.consumers.say", path=FAN),
    route("websocket.disconnect", "benchmarks.sites.ours.consumers.leave", path=FAN),
    route("websocket.receive", "benchmarks.sites.ours.consumers.echo", path=r"^/echo/$"),
]
