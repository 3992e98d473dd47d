"""The admission of WebSockets before the application is asked: there is room, and their origin is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from websockets.http11 import Request

from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.connection_state import Connection


class Refusal(NamedTuple):
    """The refusal of a handshake; ``cause`` is for the counters, ``retry_after`` in seconds."""

    status: int
    cause: str
    reason: str
    retry_after: int | None = None


def admit(
    context: ServerContext, request: Request, headers: Sequence[Sequence[bytes]], peer: Sequence[Any] | None
) -> str | Refusal:
    """Return the place that a WebSocket takes, or its refusal.

    :class:`channelsq.interface.presence.clients.Clients` counts places.

    Args:
        context: the state that all connections share.
        request: the handshake's request, and ``headers`` its headers, names in lower case.
        peer: address and port of the connection.
    """
    if context.ending:
        return Refusal(503, "ending", "the server is shutting down", 5)
    foreign = context.origins.refusal(*handshake.origin_and_host(request))
    if foreign is not None:
        return Refusal(403, "foreign_origin", foreign)
    place = context.clients.enter_request(headers, peer)
    if place is None:
        return Refusal(429, "too_many_per_client", context.clients.reason, 1)
    return place


def connection_of(context: ServerContext, request: Request, path: str) -> Connection:
    """Return the state of an admitted WebSocket."""
    return Connection(
        context.new_channel("websocket.send!"),
        path,
        context.config.root_path,
        max_messages=context.limits.backlog_messages,
        max_bytes=context.limits.backlog_bytes,
        max_held=context.config.send_queue,
        offered=handshake.offered_subprotocols(request),
    )
