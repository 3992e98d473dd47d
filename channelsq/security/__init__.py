"""Rules for opening sockets: :mod:`channelsq.security.websockets` (origins), :mod:`channelsq.security.tokens`."""
