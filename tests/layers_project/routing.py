"""All layers route the same channels, to consumers that answer differently."""

from channelsq import route
from tests.layers_project import consumers

urlpatterns: list[object] = []

default_routing = [
    route("websocket.connect", consumers.connect),
    route("websocket.receive", consumers.receive),
    route("fail", consumers.fail_once),
    route("hang", consumers.hang_once),
]

other_routing = [
    route("websocket.connect", consumers.connect),
    route("websocket.receive", consumers.receive),
    route("job", consumers.job),
]

third_routing = [
    route("websocket.connect", consumers.connect),
    route("websocket.receive", consumers.receive),
]
