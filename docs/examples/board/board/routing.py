from board.consumers import BoardDemultiplexer, announce, record_activity
from channelsq import route, route_class

sockets = [
    route_class(BoardDemultiplexer, path=r"^/(?P<slug>[-\w]+)/$"),
]

background = [
    route("board-activity", record_activity),
    route("board-announce", announce),
]
