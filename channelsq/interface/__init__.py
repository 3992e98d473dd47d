"""The interface server: it owns the clients' sockets and nothing else.

From the command down to the wire::

    __main__     the command ``python -m channelsq.interface``
    server       uvicorn's server, with our start and our end
    hub          what all connections of the process share
    http, exchange, response, forwarded     HTTP requests
    uvicorn_http                            bounds that uvicorn's own HTTP protocol lacks
    websocket, handshake, connection        WebSockets; ``connection`` is free of I/O
    replies, link                           from and to the channel layer
    config, stats, logs                     settings, counters, log lines
"""
