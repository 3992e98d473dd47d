"""Which WebSockets are let in, before the application is asked: there is room, and their page may open one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from websockets.http11 import Request

from channelsq.interface import handshake
from channelsq.interface.connection import Connection
from channelsq.interface.hub import Hub


class Refusal(NamedTuple):
    """How a handshake is answered instead; ``cause`` for the counters, ``retry_after`` in seconds."""

    status: int
    cause: str
    reason: str
    retry_after: int | None = None


def admit(hub: Hub, request: Request, headers: Sequence[Sequence[bytes]], peer: Sequence[Any] | None) -> str | Refusal:
    """The place that a WebSocket takes, see :class:`channelsq.interface.clients.Clients`, or why it is refused.

    Args:
        hub: what all connections share.
        request: the handshake's, and ``headers`` those of it, names in lower case.
        peer: address and port of the connection.
    """
    if hub.ending:
        return Refusal(503, "ending", "the server is shutting down", 5)
    foreign = hub.origins.refusal(*handshake.origin_and_host(request))
    if foreign is not None:
        return Refusal(403, "foreign_origin", foreign)
    place = hub.clients.enter_request(headers, peer)
    if place is None:
        return Refusal(429, "too_many_per_client", hub.clients.reason, 1)
    return place


def connection_of(hub: Hub, request: Request, path: str) -> Connection:
    """The state of a WebSocket that was let in."""
    return Connection(
        hub.new_channel("websocket.send!"),
        path,
        hub.config.root_path,
        max_messages=hub.limits.backlog_messages,
        max_bytes=hub.limits.backlog_bytes,
        max_held=hub.config.send_queue,
        offered=handshake.offered_subprotocols(request),
    )
