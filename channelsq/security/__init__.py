"""Who may open a socket: :mod:`channelsq.security.websockets`."""
