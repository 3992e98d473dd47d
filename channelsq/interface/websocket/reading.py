"""Backpressure on one WebSocket client: the server stops reading while more has come than it can take."""

from __future__ import annotations

from channelsq.interface.websocket.connection_state import Connection, State
from channelsq.interface.websocket.incoming import Client, Incoming
from channelsq.interface.websocket.keepalive import KeepAlive
from channelsq.interface.websocket.socket_parts import SocketParts
from channelsq.interface.websocket.throttle import throttle_of

#: Bytes that are kept of a client that sends frames before its handshake is answered.
_EARLY = 64 * 1024


class Reading:
    """The flow of bytes from one client.

    Args:
        parts: the parts of the WebSocket.
        keep_alive: its pings.
    """

    __slots__ = ("_gone", "_keep_alive", "_parts", "_throttle", "connection", "incoming", "is_on")

    incoming: Incoming

    def __init__(self, parts: SocketParts, keep_alive: KeepAlive) -> None:
        self._parts = parts
        self._keep_alive = keep_alive
        self._throttle = throttle_of(parts.context, self)
        self._gone = False
        #: Whether the server reads the client.
        self.is_on = True
        #: The state of the WebSocket; None until it is admitted.
        self.connection: Connection | None = None

    def begin(self, client: Client) -> Incoming:
        """Return the reader of incoming bytes, which passes its events to ``client``."""
        most = self._parts.context.config.max_message_size
        self.incoming = Incoming(self._parts.wire, client, most, self._throttle)
        return self.incoming

    @property
    def is_held(self) -> bool:
        """True while the client must wait because it has sent too much at once."""
        return self._throttle is not None and self._throttle.held

    def may_take(self) -> bool:
        """Return whether more may be parsed now."""
        connection = self.connection
        if self.is_held:
            return False
        if connection is None or connection.state not in (State.CONNECTING, State.OPEN):
            return True
        return connection.state is State.OPEN and connection.has_room

    def read(self) -> None:
        """Parse waiting bytes as far as there is room; continue reading the client if there is some left."""
        self._parts.outgoing.flush()
        self.incoming.go_on()
        self.look()

    def look(self) -> None:
        """Continue or stop reading the client, depending on the room."""
        transport = self._parts.transport
        if self._gone or transport.is_closing():
            return
        connection = self.connection
        if connection is not None and connection.state is State.CONNECTING:
            # Continue reading, to notice when the client leaves.
            reading = len(self.incoming.waiting) < _EARLY
        else:
            reading = not self.incoming.waiting and self.may_take()
        if reading != self.is_on:
            self.is_on = reading
            if reading:
                transport.resume_reading()
            else:
                self._parts.context.stats.count("websocket.paused")
                transport.pause_reading()

    def ended(self) -> None:
        """Record that the connection is gone."""
        self._gone = True
        if self._throttle is not None:
            self._throttle.ended()

    # -- from the throttle; see channelsq.interface.websocket.throttle.Client -----------------

    def on_held(self) -> None:
        """See :class:`channelsq.interface.websocket.throttle.Client`."""
        self._keep_alive.held(self.incoming.unfinished)
        self._parts.log.too_fast()
        self.look()

    def on_free(self) -> None:
        """See :class:`channelsq.interface.websocket.throttle.Client`."""
        if not self._gone:
            self.read()
