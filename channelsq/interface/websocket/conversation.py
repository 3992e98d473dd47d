"""One admitted WebSocket, between its client and the application: messages, answers, deadlines, and the end."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import PayloadTooBig
from websockets.http11 import Request
from websockets.protocol import OPEN

from channelsq.core import names
from channelsq.interface.link.replies import Delivery
from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.application_messages import KNOWN_KEYS, BadReply
from channelsq.interface.websocket.connection_state import (
    IS_OPEN,
    Accept,
    Action,
    Close,
    Connection,
    IllegalTransition,
    Refuse,
    State,
    Write,
)
from channelsq.interface.websocket.idle import Idle
from channelsq.interface.websocket.keepalive import KeepAlive
from channelsq.interface.websocket.opening import Opening
from channelsq.interface.websocket.ordered_delivery import OrderedDelivery
from channelsq.interface.websocket.reading import Reading
from channelsq.interface.websocket.socket_parts import SocketParts


class Conversation:
    """The exchange of messages between a client and the application.

    It is the parser's client, the receiver of the socket's reply channel, and one of the server's sockets.

    Args:
        parts: the parts of the WebSocket.
        opening: its handshake.
        reading: the flow of its incoming bytes.
        keep_alive: its pings.
        connection: its state.
    """

    __slots__ = (
        "_begun",
        "_code",
        "_connection",
        "_context",
        "_forget_again",
        "_gone",
        "_idle",
        "_keep_alive",
        "_log",
        "_opening",
        "_ordered",
        "_outgoing",
        "_parts",
        "_reading",
    )  # fmt: skip

    def __init__(
        self, parts: SocketParts, opening: Opening, reading: Reading, keep_alive: KeepAlive, connection: Connection
    ) -> None:
        context = parts.context
        self._parts = parts
        self._context = context
        self._outgoing = parts.outgoing
        self._log = parts.log
        self._opening = opening
        self._reading = reading
        self._keep_alive = keep_alive
        self._connection = connection
        self._ordered = OrderedDelivery(context, connection, self, parts.log.target)
        self._idle = Idle(context.config.idle_timeout) if context.config.idle_timeout else None
        self._begun = context.loop.time()
        self._gone = False
        self._forget_again = False
        #: The close code to report; None for that of the close frame.
        self._code: int | None = None

    def begin(self, content: dict[str, Any]) -> None:
        """Tell the application about the socket.

        Args:
            content: the content of its ``websocket.connect``.
        """
        context, channel = self._context, self._connection.reply_channel
        context.replies.register(channel, self)
        context.sockets.add(self)
        context.stats.count("websocket.begun")
        if context.heartbeat is not None:
            context.heartbeat.opened(channel, self._connection.path)
        self._connection.connect(content)
        self._ordered.hand_out()

    # -- from the client; see channelsq.interface.websocket.incoming.Client -------------------

    def may_take(self) -> bool:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        return self._reading.may_take()

    def on_request(self, request: Request) -> None:
        """Refuse a second handshake, which the parser never reads."""
        raise IllegalTransition("a second handshake", self._connection.state)

    def on_message(self, payload: str | bytes) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._keep_alive.signs += 1
        connection = self._connection
        if connection.state is not IS_OPEN:
            return
        self._context.stats.received += 1
        if (order := connection.pass_by()) is not None:
            self._ordered.publish(names.WEBSOCKET_RECEIVE, payload, order)
        else:
            connection.receive(payload)
            self._ordered.hand_out()

    def on_bad_text(self, error: UnicodeDecodeError) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        if self._connection.state is State.OPEN:
            self._log.bad_text(error)
            self.fail(1007, "text must be UTF-8")

    def on_ping(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._keep_alive.signs += 1

    def on_pong(self, data: bytes) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._keep_alive.pong(data)

    def on_close(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._connection.begin_close()

    def on_broken(self, error: Exception) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        if self._connection.state is not State.OPEN or isinstance(error, EOFError):
            return
        self._connection.begin_close()
        if isinstance(error, PayloadTooBig):
            self._log.too_big(error)
        else:
            self._log.bad_frame(error)

    def after_parsing(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._outgoing.write_wire()

    # -- from the application; see channelsq.interface.link.replies.Receiver ------------------

    def on_reply(self, delivery: Delivery) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`."""
        connection = self._connection
        message = delivery.message
        if delivery.is_plain and connection.state is IS_OPEN:
            self._outgoing.send(delivery)
            return
        if not message.keys() <= KNOWN_KEYS:
            self._log.unknown_keys(message.keys() - KNOWN_KEYS)
        if self._context.measures is not None:
            self._ordered.note_done(message.get("done"), message.get("took"))
        try:
            actions = connection.reply(delivery)
        except BadReply as error:
            self._log.bad_reply(error)
            return
        if actions:
            self.act(actions)
        if message.get("done") is not None and connection.in_flight is None:
            self.progress()

    def on_done(self, order: int) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`."""
        connection = self._connection
        if self._context.measures is not None:
            self._ordered.note_done(order)
        actions = connection.done(order)
        if actions:
            self.act(actions)
        reading = self._reading
        if connection.in_flight is None and (
            connection.waiting or self._gone or reading.incoming.waiting or not reading.is_on
        ):
            self.progress()

    def act(self, actions: list[Action]) -> None:
        """Carry out the actions of the connection."""
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
        if not self._opening.accept(subprotocol):
            return
        outgoing, connection, wire = self._outgoing, self._connection, self._parts.wire
        outgoing.opened(is_open=connection.state is IS_OPEN, window=handshake.window(wire.extensions))
        self._context.replies.register_outlet(connection.reply_channel, outgoing)
        outgoing.write_wire()
        self._keep_alive.start(self._context.loop.time())
        self._log.accepted()
        if self._reading.incoming.waiting:
            self._reading.read()

    # -- the order of messages; see channelsq.interface.websocket.ordered_delivery.Client -----

    def progress(self) -> None:
        """Publish the next message, and read as far as there is room."""
        connection, reading = self._connection, self._reading
        if connection.waiting:
            self._ordered.hand_out()
        if not self._gone:
            if reading.incoming.waiting or not reading.is_on:
                reading.read()
        elif connection.finished:
            self._leave()

    def answer(self, status: int, cause: str, reason: str, *, retry_after: int | None = None) -> None:
        """Refuse the handshake, if it is not answered yet; see :meth:`Opening.refuse`."""
        if self._opening.is_pending:
            self._connection.begin_close()
            self._opening.refuse(status, cause, reason, retry_after=retry_after)

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; the connection ends soon, even without an answer of the client."""
        self._outgoing.begin_close(code, reason)
        self._connection.begin_close()
        if not self._gone:
            self._reading.read()

    def fail(self, code: int, reason: str) -> None:
        """Close because of an error of the client; nothing more is read from it (RFC 6455, section 7.1.7)."""
        self._connection.begin_close()
        self._outgoing.fail(code, reason)

    # -- the end ----------------------------------------------------------------------------

    def ended(self) -> None:
        """Tell the application that the client is gone."""
        self._gone = True
        wire, connection = self._parts.wire, self._connection
        close = wire.close_rcvd or wire.close_sent
        code, reason = (1006, "") if close is None else (close.code, close.reason)
        if self._code:
            code, reason = self._code, ""
        # A worker that has a message of this socket may still add it to groups.
        self._forget_again = connection.busy
        connection.end(code, reason)
        self._reading.incoming.waiting.clear()
        self._log.ended(code, self._context.loop.time() - self._begun)
        self._context.link.forget(connection.reply_channel)
        self.progress()

    def _leave(self) -> None:
        """Forget the socket, as the application has finished its disconnect."""
        context, channel = self._context, self._connection.reply_channel
        if self not in context.sockets:
            return
        context.sockets.discard(self)
        if context.heartbeat is not None:
            context.heartbeat.closed(channel)
        context.replies.unregister(channel)
        if self._forget_again:
            context.link.forget(channel)

    @property
    def is_disconnect_published(self) -> bool:
        """See :class:`channelsq.interface.context.server_context.Socket`."""
        return self._ordered.is_disconnect_published

    def publish_rest(self) -> None:
        """Publish all remaining messages without waiting, as the process ends."""
        if self._gone:
            self._ordered.publish_rest()
            self.progress()

    # -- time -------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """See :class:`channelsq.interface.context.server_context.Socket`."""
        connection, reading = self._connection, self._reading
        self._ordered.on_tick(now)
        if self._gone:
            return
        self._keep_alive.look(now, reading.incoming.unfinished, read=reading.is_on, held=reading.is_held)
        if connection.state is State.CONNECTING:
            self._look_at_accept(now - self._begun, now)
        elif self._parts.wire.state is OPEN:
            self._look_at_client(now)

    def _look_at_accept(self, waited: float, now: float) -> None:
        """Give up on a socket that no consumer accepts."""
        limits, timeout = self._context.limits, self._context.config.accept_timeout
        is_done = self._connection.connect_done
        if waited >= timeout:
            missing = "its consumer did not accept it" if is_done else "no consumer handled it"
            self.answer(504, "timeout", f"{missing} within {timeout:g} s")
        elif is_done and waited >= limits.answer_patience:
            self._log.unaccepted(now)

    def _look_at_client(self, now: float) -> None:
        """Drop a client that is lost, close one that is idle, or send a ping that is due."""
        connection, outgoing = self._connection, self._outgoing
        if self._keep_alive.is_lost(now):
            self._log.ping_timeout()
            self._code = 1006
            connection.begin_close()
            self._parts.transport.abort()
        elif self._idle and self._idle.is_over(now, connection.messages, outgoing.flushes, busy=connection.busy):
            self._log.idle()
            self.close(1001, "idle")
        elif (data := self._keep_alive.ping(now)) is not None:
            self._parts.wire.send_ping(data)
            outgoing.write_wire()
