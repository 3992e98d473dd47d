"""WebSocket clients: the ``asyncio.Protocol`` between a transport and the parts of one WebSocket.

uvicorn reads the upgrade request and hands the transport over.  From then on this is the transport's protocol;
uvicorn's server only calls :meth:`WebSocketProtocol.shutdown`.  The parts, and what each changes with:

====================  ==============================================================================
``incoming``          from bytes to messages: frames, fragments, compression
``opening``           the handshake, until the WebSocket is admitted, and its answer
``conversation``      an admitted WebSocket: messages, answers, deadlines, the end
``connection_state``  the state of an admitted WebSocket; without I/O
``ordered_delivery``  one message after another goes to the workers
``reading``           backpressure: whether the client is read
``outgoing``          what is written, and the closing handshake
====================  ==============================================================================
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from websockets.protocol import CONNECTING, OPEN

from channelsq.interface.basis.addresses import remote_address
from channelsq.interface.basis.log_fields import DiscreetLogger
from channelsq.interface.basis.uvicorn_state_internals import ServerState, connections_of
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.connection_state import IS_OPEN
from channelsq.interface.websocket.conversation import Conversation
from channelsq.interface.websocket.incoming import Incoming
from channelsq.interface.websocket.keepalive import KeepAlive
from channelsq.interface.websocket.opening import Admitted, Opening
from channelsq.interface.websocket.outgoing import Outgoing
from channelsq.interface.websocket.reading import Reading
from channelsq.interface.websocket.socket_log import SocketLog
from channelsq.interface.websocket.socket_parts import SocketParts
from channelsq.interface.websocket.websockets_wire_internals import Wire

#: The logger of the wire; created once, since the parser checks its level for every client.
_wire_logger = DiscreetLogger(logging.getLogger("websockets.server"))


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket client.

    Args:
        context: the state that all connections share.
        server_state: uvicorn's state, for its list of connections to shut down.
    """

    __slots__ = (
        "_context",
        "_conversation",
        "_incoming",
        "_keep_alive",
        "_opening",
        "_parts",
        "_reading",
        "_server_connections",
        "place",
    )  # fmt: skip

    def __init__(self, context: ServerContext, server_state: ServerState) -> None:
        self._context = context
        self._server_connections = connections_of(server_state)
        self._parts: SocketParts
        self._opening: Opening
        self._reading: Reading
        self._incoming: Incoming
        #: None until the WebSocket is admitted.
        self._conversation: Conversation | None = None
        self._keep_alive = KeepAlive(context.config.ping_interval, context.config.ping_timeout, context.limits.lively)
        #: The held place, see :class:`channelsq.interface.presence.clients.Clients`.
        self.place = ""

    # -- the transport ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context, plain = self._context, cast(asyncio.Transport, transport)
        wire = Wire(
            extensions=handshake.EXTENSIONS,
            max_size=context.config.max_message_size,
            max_line=context.config.max_header_size,
            logger=_wire_logger,
        )
        address = remote_address(plain)
        outgoing = Outgoing(context, wire, plain, self._on_slow)
        log = SocketLog(context, list(address) if address else None)
        self._parts = SocketParts(context, plain, wire, outgoing, log)
        self._reading = Reading(self._parts, self._keep_alive)
        self._opening = Opening(self._parts, self._reading, self._on_admitted)
        self._incoming = self._reading.begin(self._opening)
        self._server_connections.add(self)
        plain.resume_reading()

    def _on_admitted(self, admitted: Admitted) -> None:
        self.place = admitted.place or self.place
        connection = admitted.connection
        self._parts.log.id = connection.reply_channel
        self._reading.connection = connection
        self._conversation = conversation = Conversation(
            self._parts, self._opening, self._reading, self._keep_alive, connection
        )
        self._incoming.client = conversation
        conversation.begin(admitted.content)

    def data_received(self, data: bytes) -> None:
        self._context.stats.received_bytes += len(data)
        incoming, reading = self._incoming, self._reading
        incoming.feed(data)
        connection = reading.connection
        if (
            connection is None
            or connection.state is not IS_OPEN
            or incoming.waiting
            or not reading.is_on
            or not connection.has_room
        ):
            reading.look()

    def pause_writing(self) -> None:
        self._parts.outgoing.pause()

    def resume_writing(self) -> None:
        self._parts.outgoing.resume()

    def eof_received(self) -> None:
        self._parts.wire.receive_eof()
        self._parts.outgoing.write_wire()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_connections.discard(self)
        self._context.connections -= 1
        self._context.clients.leave(self.place)
        self._parts.outgoing.ended()
        self._reading.ended()
        if self._conversation is not None:
            self._conversation.ended()

    # -- the server -------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True while the handshake is complete, and no end of the connection has begun."""
        return self._parts.wire.state is OPEN

    @property
    def is_beginning(self) -> bool:
        """True until the handshake is answered."""
        return self._opening.is_pending

    def shutdown(self) -> None:
        """Close the connection as the server shuts down, or refuse it if it is not accepted yet."""
        if self._parts.wire.state is CONNECTING:
            side = self._opening.refuse if self._conversation is None else self._conversation.answer
            side(503, "ending", "the server is shutting down", retry_after=5)
        else:
            self._close(1012, "the server is shutting down")

    def abort(self) -> None:
        """End the connection at once."""
        self._parts.transport.abort()

    def _on_slow(self, waiting: int) -> None:
        self._parts.log.too_slow(waiting)
        self._close(1013, "too slow")

    def _close(self, code: int, reason: str) -> None:
        side = self._parts.outgoing.begin_close if self._conversation is None else self._conversation.close
        side(code, reason)
