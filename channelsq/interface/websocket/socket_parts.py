"""What the parts of one WebSocket share: the client's transport, the parser, what is written, and the log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.websocket.outgoing import Outgoing
from channelsq.interface.websocket.socket_log import SocketLog
from channelsq.interface.websocket.websockets_wire_internals import Wire


@dataclass(frozen=True, slots=True)
class SocketParts:
    """One WebSocket's.

    Args:
        context: what all connections share.
        transport: the client's.
        wire: the parser, which also makes control frames.
        outgoing: what is written to the client.
        log: what is counted and logged of the client.
    """

    context: ServerContext
    transport: asyncio.Transport
    wire: Wire
    outgoing: Outgoing
    log: SocketLog
