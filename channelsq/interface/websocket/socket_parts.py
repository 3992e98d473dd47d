"""The shared parts of one WebSocket: the client's transport, the parser, the output, and the log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.websocket.outgoing import Outgoing
from channelsq.interface.websocket.socket_log import SocketLog
from channelsq.interface.websocket.websockets_wire_internals import Wire


@dataclass(frozen=True, slots=True)
class SocketParts:
    """The shared parts of one WebSocket.

    Args:
        context: the state that all connections share.
        transport: the client's transport.
        wire: the parser, which also creates control frames.
        outgoing: the output to the client.
        log: the counters and log lines of the client.
    """

    context: ServerContext
    transport: asyncio.Transport
    wire: Wire
    outgoing: Outgoing
    log: SocketLog
