"""The routing; WebSockets outside of rooms are accepted because no route refuses them."""

from channelsq import route

FAN = r"^/fan/(?P<group>[-\w]+)/$"

channel_routing = [
    route("websocket.connect", "benchmarks.sites.ours.consumers.join", path=FAN),
    route("websocket.receive", "benchmarks.sites.ours.consumers.say", path=FAN),
    route("websocket.disconnect", "benchmarks.sites.ours.consumers.leave", path=FAN),
    route("websocket.receive", "benchmarks.sites.ours.consumers.echo", path=r"^/echo/$"),
    route("websocket.receive", "benchmarks.sites.ours.consumers.wait", path=r"^/wait/(?P<us>\d+)/$"),
    route("websocket.receive", "benchmarks.sites.ours.consumers.start_tasks", path=r"^/live/$"),
    route("websocket.receive", "benchmarks.sites.ours.consumers.query", path=r"^/query/$"),
    route("websocket.receive", "benchmarks.sites.ours.consumers.compute", path=r"^/compute/(?P<us>\d+)/$"),
]
