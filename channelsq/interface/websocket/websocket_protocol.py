"""WebSocket clients: an ``asyncio.Protocol`` between a transport, ``websockets``' parser and a Connection.

uvicorn reads the upgrade request and hands the transport over.  From then on this is the transport's
protocol; uvicorn's server only calls :meth:`WebSocketProtocol.shutdown`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from websockets.exceptions import InvalidMessage, PayloadTooBig
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN
from websockets.typing import Subprotocol

from channelsq.core import names
from channelsq.interface.basis.addresses import remote_address
from channelsq.interface.basis.log_fields import DiscreetLogger, shown_target
from channelsq.interface.basis.request_validation import has_controls
from channelsq.interface.basis.uvicorn_state_internals import ServerState, connections_of
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.link.replies import Delivery
from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.admission import Refusal, admit, connection_of
from channelsq.interface.websocket.connection_state import (
    IS_OPEN,
    KNOWN_KEYS,
    Accept,
    Action,
    BadReply,
    Close,
    Connection,
    Refuse,
    State,
    Write,
)
from channelsq.interface.websocket.idle import Idle
from channelsq.interface.websocket.incoming import Incoming
from channelsq.interface.websocket.keepalive import KeepAlive
from channelsq.interface.websocket.ordered_delivery import OrderedDelivery
from channelsq.interface.websocket.outgoing import Outgoing
from channelsq.interface.websocket.socket_log import SocketLog
from channelsq.interface.websocket.throttle import throttle_of
from channelsq.interface.websocket.websockets_wire_internals import Wire, is_about_handshake

#: What the wire logs; asked for once, since the parser looks at its level for every client.
_wire_logger = DiscreetLogger(logging.getLogger("websockets.server"))

#: Bytes kept of a client that sends frames before its handshake is answered.
_EARLY = 64 * 1024


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket client.

    Args:
        hub: what all connections share.
        server_state: uvicorn's, for its list of connections to shut down.
    """

    __slots__ = (
        "_begun",
        "_code",
        "_connection",
        "_context",
        "_forget_again",
        "_gone",
        "_idle",
        "_incoming",
        "_keep_alive",
        "_notes",
        "_outgoing",
        "_reading",
        "_response",
        "_server_connections",
        "_throttle",
        "_transport",
        "_turns",
        "_wire",
        "place",
    )  # fmt: skip

    def __init__(self, context: ServerContext, server_state: ServerState) -> None:
        self._context = context
        self._server_connections = connections_of(server_state)
        self._wire = Wire(
            extensions=handshake.EXTENSIONS,
            max_size=context.config.max_message_size,
            max_line=context.config.max_header_size,
            logger=_wire_logger,
        )
        self._throttle = throttle_of(context, self)
        self._incoming = Incoming(self._wire, self, context.config.max_message_size, self._throttle)
        self._transport: asyncio.Transport
        self._outgoing: Outgoing
        self._notes: SocketLog
        #: None until there was a handshake that can be accepted.
        self._connection: Connection | None = None
        #: The answer to the handshake, until it is sent.
        self._response: Response | None = None
        self._reading = True
        self._gone = False
        self._code: int | None = None
        self._begun = 0.0
        self._turns: OrderedDelivery | None = None
        self._forget_again = False
        self._idle = Idle(context.config.idle_timeout) if context.config.idle_timeout else None
        #: What it counts for, see :class:`channelsq.interface.presence.clients.Clients`.
        self.place = ""
        self._keep_alive = KeepAlive(context.config.ping_interval, context.config.ping_timeout, context.limits.lively)

    # -- the transport ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outgoing = Outgoing(self._context, self._wire, self._transport, self._on_slow)
        self._server_connections.add(self)
        address = remote_address(self._transport)
        self._notes = SocketLog(self._context, list(address) if address else None)
        self._begun = self._context.loop.time()
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._context.stats.received_bytes += len(data)
        incoming, connection = self._incoming, self._connection
        incoming.feed(data)
        if (
            connection is None
            or connection.state is not IS_OPEN
            or incoming.waiting
            or not self._reading
            or not connection.has_room
        ):
            self._look_at_reading()

    def pause_writing(self) -> None:
        self._outgoing.pause()

    def resume_writing(self) -> None:
        self._outgoing.resume()

    def eof_received(self) -> None:
        self._wire.receive_eof()
        self._outgoing.write_wire()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._server_connections.discard(self)
        self._context.connections -= 1
        self._context.clients.leave(self.place)
        self._outgoing.ended()
        if self._throttle is not None:
            self._throttle.ended()
        connection = self._connection
        if connection is None:
            return
        close = self._wire.close_rcvd or self._wire.close_sent
        code, reason = (1006, "") if close is None else (close.code, close.reason)
        if self._code:
            code, reason = self._code, ""
        # A worker that has a message of this socket may still add it to groups.
        self._forget_again = connection.busy
        connection.end(code, reason)
        self._incoming.waiting.clear()
        self._notes.ended(code, self._context.loop.time() - self._begun)
        self._context.link.forget(connection.reply_channel)
        self.progress()

    @property
    def is_open(self) -> bool:
        """Whether the handshake is complete, and no end of the connection has begun."""
        return self._wire.state is OPEN

    @property
    def is_beginning(self) -> bool:
        """Whether the handshake is to be answered yet."""
        return self._wire.state is CONNECTING and not self._wire.eof_sent

    def shutdown(self) -> None:
        """The server ends: close the connection, or refuse it if it is not accepted yet."""
        if self._wire.state is CONNECTING:
            self.answer(503, "ending", "the server is shutting down", retry_after=5)
        else:
            self.close(1012, "the server is shutting down")

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # -- reading ----------------------------------------------------------------------------

    def _read(self) -> None:
        """Parse what waits, as far as there is room; read on from the client if there is some left."""
        self._outgoing.flush()
        self._incoming.go_on()
        self._look_at_reading()

    def _look_at_reading(self) -> None:
        if self._gone or self._transport.is_closing():
            return
        connection = self._connection
        if connection is not None and connection.state is State.CONNECTING:
            # Read on, to notice when the client leaves.
            reading = len(self._incoming.waiting) < _EARLY
        else:
            reading = not self._incoming.waiting and self.may_take()
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._context.stats.count("websocket.paused")
                self._transport.pause_reading()

    def may_take(self) -> bool:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        connection = self._connection
        if self._throttle is not None and self._throttle.held:
            return False
        if connection is None or connection.state not in (State.CONNECTING, State.OPEN):
            return True
        return connection.state is State.OPEN and connection.has_room

    def on_held(self) -> None:
        """See :class:`channelsq.interface.websocket.throttle.Client`."""
        self._keep_alive.held(self._incoming.unfinished)
        self._notes.too_fast()
        self._look_at_reading()

    def on_free(self) -> None:
        """See :class:`channelsq.interface.websocket.throttle.Client`."""
        if not self._gone:
            self._read()

    def on_message(self, payload: str | bytes) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._keep_alive.signs += 1
        connection = self._connection
        if connection is None or connection.state is not IS_OPEN:
            return
        self._context.stats.received += 1
        assert self._turns is not None
        if (order := connection.pass_by()) is not None:
            self._turns.publish(names.WEBSOCKET_RECEIVE, payload, order)
        else:
            connection.receive(payload)
            self._turns.hand_out()

    def on_bad_text(self, error: UnicodeDecodeError) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        if self._connection is None or self._connection.state is not State.OPEN:
            return
        self._notes.bad_text(error)
        self.fail(1007, "text must be UTF-8")

    def on_close(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        if self._connection is not None:
            self._connection.begin_close()

    def on_broken(self, error: Exception) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        if is_about_handshake(self._wire, error):
            if self._response is None:
                # The parser gave up on the request; if that is all it could say, say so to the client.
                self._response = handshake.plain_response(400, ": not a WebSocket handshake")
                if isinstance(error, InvalidMessage):
                    self._transport.write(self._response.serialize())
                self._notes.refused(400, "bad_handshake", f"bad handshake: {error.__cause__ or error}")
            return
        if self._connection is None or self._connection.state is not State.OPEN or isinstance(error, EOFError):
            return
        self._connection.begin_close()
        if isinstance(error, PayloadTooBig):
            self._notes.too_big(error)
        else:
            self._notes.bad_frame(error)

    def on_ping(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._keep_alive.signs += 1

    def on_pong(self, data: bytes) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._keep_alive.pong(data)

    def after_parsing(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._outgoing.write_wire()

    # -- the handshake ----------------------------------------------------------------------

    def on_request(self, request: Request) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        path, query = handshake.split_target(request.path)
        notes, config = self._notes, self._context.config
        notes.target = shown_target(path, query)
        if has_controls(path):
            self.answer(400, "bad_handshake", "a control character in the path")
            return
        self._response = response = handshake.answer_to(self._wire, request)
        if response.status_code != 101:
            notes.refused(response.status_code, "bad_handshake", f"bad handshake: {self._wire.handshake_exc}")
            self._wire.send_response(response)
            return
        content = handshake.connect_content(
            request, self._transport, notes.client, root_path=config.root_path, proxy_headers=config.proxy_headers
        )
        admitted = admit(self._context, request, content["headers"], notes.client)
        if isinstance(admitted, Refusal):
            self.answer(admitted.status, admitted.cause, admitted.reason, retry_after=admitted.retry_after)
            return
        self.place = admitted or self.place
        notes.client = content["client"]
        self._connection = connection_of(self._context, request, path)
        self._connection.outlet = self._outgoing
        notes.id = self._connection.reply_channel
        self._context.replies.register(notes.id, self)
        self._context.sockets.add(self)
        self._context.stats.count("websocket.begun")
        if self._context.heartbeat is not None:
            self._context.heartbeat.opened(notes.id, path)
        self._turns = OrderedDelivery(self._context, self._connection, self, notes.target)
        self._connection.connect(content)
        self._turns.hand_out()

    def answer(self, status: int, cause: str, reason: str, *, retry_after: int | None = None) -> None:
        """Answer the handshake with something else than 101, and end the connection.

        Args:
            cause: what is counted, a word of a few.
            reason: what is logged.
        """
        if self._wire.state is not CONNECTING or self._wire.eof_sent:
            return
        if self._connection is not None:
            self._connection.begin_close()
        self._notes.refused(status, cause, reason)
        self._wire.send_response(handshake.plain_response(status, "", retry_after))
        self._outgoing.write_wire()

    # -- to and from the application --------------------------------------------------------

    @property
    def told(self) -> bool:
        """See :class:`channelsq.interface.context.server_context.Socket`."""
        return self._turns is not None and self._turns.told

    def progress(self) -> None:
        """Hand out what comes next, and read what there is room for now."""
        connection = self._connection
        assert connection is not None
        if connection.waiting:
            assert self._turns is not None
            self._turns.hand_out()
        if not self._gone:
            if self._incoming.waiting or not self._reading:
                self._read()
        elif connection.finished and self in self._context.sockets:
            self._context.sockets.discard(self)
            if self._context.heartbeat is not None:
                self._context.heartbeat.closed(connection.reply_channel)
            self._context.replies.unregister(connection.reply_channel)
            if self._forget_again:
                self._context.link.forget(connection.reply_channel)

    def let_go(self) -> None:
        """Publish all that is left, without waiting for anything: the process ends."""
        if self._gone and self._turns is not None:
            self._turns.let_go()
            self.progress()

    def on_reply(self, delivery: Delivery) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`."""
        connection = self._connection
        assert connection is not None
        message = delivery.message
        if delivery.is_plain and connection.state is IS_OPEN:
            self._outgoing.send(delivery)
            return
        if not message.keys() <= KNOWN_KEYS:
            self._notes.unknown_keys(message.keys() - KNOWN_KEYS)
        if self._context.measures is not None and self._turns is not None:
            self._turns.note_done(message.get("done"), message.get("took"))
        try:
            actions = connection.reply(delivery)
        except BadReply as error:
            self._notes.bad_reply(error)
            return
        if actions:
            self.act(actions)
        if message.get("done") is not None and connection.in_flight is None:
            self.progress()

    def on_done(self, order: int) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`."""
        connection = self._connection
        assert connection is not None
        if self._context.measures is not None and self._turns is not None:
            self._turns.note_done(order)
        actions = connection.done(order)
        if actions:
            self.act(actions)
        if connection.in_flight is None and (
            connection.waiting or self._gone or self._incoming.waiting or not self._reading
        ):
            self.progress()

    def act(self, actions: list[Action]) -> None:
        """Do what the connection decided."""
        for action in actions:
            if self._gone:
                return
            if isinstance(action, Write):
                self._outgoing.send(action.reply)
            elif isinstance(action, Accept):
                self._context.unconsumed.answers[names.WEBSOCKET_CONNECT] += 1
                self._accept(action.subprotocol)
            elif isinstance(action, Close):
                self.close(action.code, action.reason)
            elif isinstance(action, Refuse):
                self._context.unconsumed.answers[names.WEBSOCKET_CONNECT] += 1
                self.answer(action.status, "application" if action.status == 403 else "failed", action.reason)
        self._outgoing.flush()

    def _accept(self, subprotocol: str | None) -> None:
        if self._response is None or self._wire.state is not CONNECTING or self._wire.eof_sent:
            return
        if subprotocol is not None:
            self._response.headers["Sec-WebSocket-Protocol"] = subprotocol
            self._wire.subprotocol = Subprotocol(subprotocol)
        self._wire.send_response(self._response)
        self._response = None
        assert self._connection is not None
        self._outgoing.opened(is_open=self._connection.state is IS_OPEN, window=handshake.window(self._wire.extensions))
        self._context.replies.register_outlet(self._connection.reply_channel, self._outgoing)
        self._outgoing.write_wire()
        self._keep_alive.start(self._context.loop.time())
        self._notes.accepted()
        if self._incoming.waiting:
            self._read()

    def _on_slow(self, waiting: int) -> None:
        self._notes.too_slow(waiting)
        self.close(1013, "too slow")

    # -- closing ----------------------------------------------------------------------------

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; the connection ends soon, whether or not the client answers."""
        self._outgoing.begin_close(code, reason)
        if self._connection is not None:
            self._connection.begin_close()
        if not self._gone:
            self._read()

    def fail(self, code: int, reason: str) -> None:
        """Close because of what the client sent; nothing more is read from it (RFC 6455, section 7.1.7)."""
        if self._connection is not None:
            self._connection.begin_close()
        self._outgoing.fail(code, reason)

    # -- time -------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """See :class:`channelsq.interface.context.server_context.Socket`."""
        connection = self._connection
        assert connection is not None
        if self._turns is not None:
            self._turns.on_tick(now)
        if self._gone:
            return
        held = self._throttle is not None and self._throttle.held
        self._keep_alive.look(now, self._incoming.unfinished, read=self._reading, held=held)
        if connection.state is State.CONNECTING:
            if now - self._begun >= self._context.config.accept_timeout:
                missing = "its consumer did not accept it" if connection.connect_done else "no consumer handled it"
                self.answer(504, "timeout", f"{missing} within {self._context.config.accept_timeout:g} s")
            elif connection.connect_done and now - self._begun >= self._context.limits.answer_patience:
                self._notes.unaccepted(now)
        elif self._wire.state is OPEN:
            if self._keep_alive.is_lost(now):
                self._notes.ping_timeout()
                self._code = 1006
                connection.begin_close()
                self._transport.abort()
            elif self._idle and self._idle.is_over(
                now, connection.messages, self._outgoing.flushes, busy=connection.busy
            ):
                self._notes.idle()
                self.close(1001, "idle")
            elif (data := self._keep_alive.ping(now)) is not None:
                self._wire.send_ping(data)
                self._outgoing.write_wire()
