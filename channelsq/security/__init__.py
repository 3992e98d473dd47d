"""Who may open a socket: :mod:`channelsq.security.websockets` (origins), :mod:`channelsq.security.tokens`."""
