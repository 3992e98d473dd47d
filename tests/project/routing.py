"""Every consumer of the project, one channel each."""

from channelsq import route

channel_routing = [
    route("websocket.connect", "tests.project.consumers.order_connect", path=r"^/order/(?P<name>\d+)/$"),
    route("websocket.receive", "tests.project.consumers.order_receive", path=r"^/order/(?P<name>\d+)/$"),
    route("websocket.disconnect", "tests.project.consumers.order_disconnect", path=r"^/order/(?P<name>\d+)/$"),
    route("websocket.receive", "tests.project.consumers.count", path=r"^/count/\d+/$"),
    route("websocket.connect", "tests.project.consumers.connect"),
    route("websocket.receive", "tests.project.consumers.receive", path=r"^/chat/(?P<room>\w+)/$"),
    route("websocket.receive", "tests.project.consumers.deadly", path=r"^/deadly/$"),
    route("websocket.disconnect", "tests.project.consumers.disconnect"),
    route("http.disconnect", "tests.project.consumers.http_disconnect"),
    route("kills", "tests.project.consumers.kills"),
    route("dies", "tests.project.consumers.dies"),
    route("echo", "tests.project.consumers.echo"),
    route("fail", "tests.project.consumers.fail"),
    route("leave", "tests.project.consumers.leave"),
    route("flaky", "tests.project.consumers.flaky"),
    route("bound", "tests.project.consumers.bound"),
    route("later", "tests.project.consumers.later"),
    route("slow", "tests.project.consumers.slow"),
    route("once", "tests.project.consumers.once"),
    route("limited", "tests.project.consumers.limited"),
    route("rated", "tests.project.consumers.rated"),
    route("database", "tests.project.consumers.database"),
    route("listen", "tests.project.consumers.listen"),
    route("request", "tests.project.consumers.request"),
    route("books", "tests.project.consumers.books"),
    route("rejected", "tests.project.consumers.rejected"),
    route("picky", "tests.project.consumers.echo", path="^/only-this/$"),
    route("unordered", "tests.project.consumers.slow", ordered=False),
]
