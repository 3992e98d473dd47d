"""The interface server: it owns the clients' sockets and nothing else.

From the command down to the wire::

    __main__      the command ``python -m channelsq.interface``
    process/      uvicorn's server with our start and shutdown
    context/      the state that all connections of a process share
    http/         HTTP requests: ``uvicorn_http`` reads them; ``single_response`` answers most, ``http_app`` the others
    websocket/    WebSockets: ``websocket_protocol`` lists the parts of a connection
    presence/     heartbeats, clients, the groups of sockets
    link/         messages to and from the channel layer
    pages/        the server's own pages and metrics
    supervision/  several processes on the same ports
    basis/        settings, limits, counters, log fields, frames
"""
