"""One route: sockets are accepted because no route refuses them."""

from channelsq import route

channel_routing = [route("websocket.receive", "tests.autobahn.site.consumers.echo")]
