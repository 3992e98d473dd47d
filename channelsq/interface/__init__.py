"""The interface server: it owns the clients' sockets and nothing else.

From the command down to the wire::

    __main__     the command ``python -m channelsq.interface``
    server       uvicorn's server, with our start and our end
    hub          what all connections of the process share
    uvicorn_http                            bounds that uvicorn's own HTTP protocol lacks
    exchange                                a request and its answer of one message each: no task
    http, body, asking, response, forwarded every other HTTP request
    websocket, turns, packing, handshake    WebSockets; ``connection`` and ``keepalive`` are free of I/O
    incoming, outgoing, frames, deflate     their frames
    replies, link                           from and to the channel layer
    config, packages, stats, logs           settings, versions, counters, log lines
"""
