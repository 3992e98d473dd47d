from channelsq import include

channel_routing = [
    include("board.routing.sockets", path=r"^/boards"),
    include("board.routing.background"),
]
