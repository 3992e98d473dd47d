"""The interface server: it owns the clients' sockets and nothing else.

From the command down to the wire::

    __main__      the command ``python -m channelsq.interface``
    process/      uvicorn's server, with our start and our end, and the processes that serve together
    context/      what all connections of a process share
    http/         HTTP requests: ``uvicorn_http`` reads them; ``single_response`` answers most, ``http_app`` the others
    websocket/    WebSockets: ``websocket_protocol`` names the parts of one
    presence/     heartbeats, clients, the groups of sockets
    link/         from and to the channel layer
    pages/        the server's own pages and metrics
    basis/        settings, limits, counters, log fields, frames
"""
