"""The two addresses of a client's connection."""

from __future__ import annotations

import asyncio
import socket


def remote_address(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """Return a client's host and port; None for a client on a Unix socket, or one that has left."""
    plain: socket.socket | None = transport.get_extra_info("socket")
    try:
        found = transport.get_extra_info("peername") if plain is None else plain.getpeername()
    except OSError:
        return None
    return (str(found[0]), int(found[1])) if isinstance(found, (tuple, list)) else None


def local_address(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """Return the host and port that a client has connected to; None for a Unix socket."""
    plain: socket.socket | None = transport.get_extra_info("socket")
    found = transport.get_extra_info("sockname") if plain is None else plain.getsockname()
    return (str(found[0]), int(found[1])) if isinstance(found, (tuple, list)) else None


def is_encrypted(transport: asyncio.BaseTransport) -> bool:
    """Return whether the connection uses TLS that this server terminates."""
    return bool(transport.get_extra_info("sslcontext"))
