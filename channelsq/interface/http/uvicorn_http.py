"""uvicorn's HTTP protocol, with the bounds that it lacks.

It reads headers of any size and waits for them for ever; here both end with an answer, and so do a connection too
many and what ``strict`` refuses.  It also gives the application a way to drop a connection, and one to end it with an
answer while the client still sends.  A client that has ended its side is answered, and one of HTTP/1.0 gets no chunks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn import Config

from channelsq.interface.basis.log_fields import extra, shown_client
from channelsq.interface.basis.request_validation import Flaw, check
from channelsq.interface.basis.uvicorn_state_internals import ServerState
from channelsq.interface.http.answer_bytes import refusal, written
from channelsq.interface.http.half_closed import HalfClosed
from channelsq.interface.http.head_bounds import HeadBounds
from channelsq.interface.http.http_app import BEGUN
from channelsq.interface.http.request_message import ABORT, LAST, Refused, RequestMessage
from channelsq.interface.http.response_messages import Start
from channelsq.interface.http.single_response import SingleResponse
from channelsq.interface.http.until_close import UntilClose
from channelsq.interface.http.upgrades import head_without_upgrade, refusal_of_handshake
from channelsq.interface.http.uvicorn_http_internals import RequestResponseCycle, UvicornHttpProtocol

if TYPE_CHECKING:
    from channelsq.interface.context.server_context import ServerContext
    from channelsq.interface.pages.status_pages import StatusPages
    from channelsq.interface.websocket.websocket_protocol import WebSocketProtocol

#: Connections over the limit that are answered; beyond these they are dropped.
_ANSWERED = 100

#: Seconds until a connection too many is closed, if it does not ask for anything.
_SURPLUS_TIMEOUT = 1.0

#: The value of SO_LINGER with which the end of a connection is a reset.
_RESET = struct.pack("ii", 1, 0)

#: What the log says of a flaw, by its status.
_ACTIONS = {429: "too_many_pipelined", 431: "headers_too_large"}

logger = logging.getLogger("channelsq.interface.http")


class HttpProtocol(UvicornHttpProtocol):
    """One connection, until it becomes a WebSocket.

    Args:
        context: what all connections share.
        status: the server's own pages.
        config, server_state, app_state: uvicorn's own.
    """

    def __init__(
        self,
        context: ServerContext,
        status: StatusPages,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, context.loop)
        self.logger = logger
        self._context = context
        self._status = status
        #: Larger bodies are looked at, or sent on in parts.
        self._body_at_once = min(context.limits.body_chunk, context.config.max_body_size or sys.maxsize)
        self._head = HeadBounds(context.config.max_header_size, context.limits.pipelined)
        self._head_timer: asyncio.TimerHandle | None = None
        #: Why this connection is one too many: status, action and reason.
        self._surplus: tuple[int, str, str] | None = None
        #: What it, or the request that is answered, counts for.
        self._place = ""
        #: Whether all is said: what still comes is thrown away.
        self._lingering = False
        #: Why the parser was stopped.
        self._flaw: Flaw | None = None
        #: Whether something was refused, and the answer to that while earlier requests are not answered.
        self._refused = False
        self._refusal = b""
        #: The request whose turn it is; ``cycle`` is the newest.
        self._active: RequestResponseCycle | None = None
        #: Whether the parser is at work, and what it came upon: a request whose body may be behind its head.
        self._parsing = False
        self._found: tuple[RequestResponseCycle, Any] | None = None
        #: The request that is answered without a task.
        self._single: SingleResponse | None = None
        #: Looks whether the client is there, once it has ended its side.
        self._half_closed: HalfClosed | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        context = self._context
        context.connections += 1
        most = context.config.max_connections
        if context.connections > most:
            self._surplus = 503, "too_many_connections", f"more than {most} connections (--max-connections)"
            if context.connections > most + _ANSWERED:
                self._refuse(*self._surplus)
                return
        else:
            place = context.clients.enter_connection(self.client)
            if place is None:
                self._surplus = 429, "too_many_per_client", context.clients.reason
            self._place = place or ""
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._context.connections -= 1
        self._leave()
        self._forget_head()
        if self._half_closed is not None:
            self._half_closed.ended()
        super().connection_lost(exc)
        if self._single is not None:
            self._single.client_left()
        active = self._active
        if active is not None and not active.response_complete:
            # uvicorn tells the newest request alone.
            active.disconnected = True
            active.message_event.set()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's
        """Keep the connection of a client that ends its side until its requests are answered.

        Return False, and have the connection closed, if no whole request waits for an answer.
        """
        if self._half_closed is not None:
            return True
        transport = self.transport
        last = self._last_whole()
        if self._lingering or last is None or last.response_complete or not transport.can_write_eof():
            return False
        if last.response_started and last.scope["http_version"] == "1.0":
            # It was reading, and cannot be asked whether it still does.
            return False
        if not self._refusal:
            last.keep_alive = False
        context = self._context
        self._half_closed = HalfClosed(
            transport, lambda: self._active or last, context.loop, context.limits.half_closed
        )
        self.transport = self._half_closed.transport
        for cycle in (self._active, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                cycle.transport = self.transport
        return True

    def _last_whole(self) -> RequestResponseCycle | None:
        """Return the newest request whose body is here, without one behind it whose body is not."""
        newest = self.newest
        if newest is not None and newest.more_body:
            if not self.pipeline:
                return None
            self.drop_newest()
            self.cycle = newest = self.pipeline[0][0] if self.pipeline else cast("RequestResponseCycle", self._active)
        return newest

    def data_received(self, data: bytes) -> None:
        self._context.stats.http_received_bytes += len(data)
        if self._lingering or self._refused:
            return
        if self._surplus is not None:
            self._refuse(*self._surplus)
            return
        self.forget_keep_alive()
        self._parsing = True
        self._parse(data)
        self._parsing = False
        if self._found is not None:
            (cycle, app), self._found = self._found, None
            if not self.transport.is_closing():
                self.start(cycle, app)
        if self._lingering:
            return
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._forget_head()
        elif not self._busy:
            # Part of a request is here, or the next one of a connection that was kept alive.
            self._expect_head()
        else:
            self._forget_head()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data = self._on_upgrade(data[upgrade.args[0] :])
            except HttpParserError as error:
                flaw = Flaw(400, str(error)) if self._flaw is None else self._flaw
                self._refuse(flaw.status, _ACTIONS.get(flaw.status, "bad_request"), str(flaw))
                return

    @property
    def is_beginning(self) -> bool:
        """Whether its first request is still to come."""
        return self.newest is None and not self._surplus

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        cycle = self.newest
        return cycle is not None and not cycle.response_complete

    # -- requests ---------------------------------------------------------------------------

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request whose turn it is; called by uvicorn."""
        if self._parsing:
            self._found = cycle, app
            return
        self._single = None
        self._active = cycle
        if cycle.scope["http_version"] == "1.0":
            app = UntilClose(app, cycle, self._drop)
        if self._status.has(cycle.scope["raw_path"]):
            self.run_application(cycle, cast(Any, self._status))
            return
        if self._context.clients.by_request and not self._enter(cycle):
            return
        if (
            self._context.config.http == "direct"
            or cycle.more_body
            or cycle.waiting_for_100_continue
            or len(cycle.body) > self._body_at_once
        ):
            self.run_application(cycle, app)
            return
        single = SingleResponse(self._context, cycle, functools.partial(self._go_on, cycle, app))
        if cycle.body and len(cycle.body) > single.request.room():
            self.run_application(cycle, app)
            return
        self._single = single
        single.begin()

    def _enter(self, cycle: RequestResponseCycle) -> bool:
        """Count the request, or refuse it."""
        place = self._context.clients.enter_request(cycle.scope["headers"], self.client)
        if place is None:
            request = RequestMessage(self._context, cycle.scope)  # type: ignore[arg-type]  # the same, in uvicorn's words
            refused = Refused(429, "too_many_per_client", self._context.clients.reason, ends=True)
            self._answer_last(*request.refuse(refused), cycle)
            return False
        self._place = place
        return True

    def _leave(self) -> None:
        place, self._place = self._place, ""
        self._context.clients.leave(place)

    def on_response_complete(self) -> None:
        """Go on with the next request; called by uvicorn."""
        if self._context.clients.by_request:
            self._leave()
        if self._refusal and not self.pipeline and not self.transport.is_closing():
            self._end(self._refusal)
        else:
            super().on_response_complete()

    def _go_on(self, cycle: RequestResponseCycle, app: Any, single: SingleResponse) -> None:
        self._single = None
        cast("dict[str, Any]", cycle.scope)[BEGUN] = single
        self.run_application(cycle, app)

    # -- bounds on the head -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        try:
            self._head.begin(len(self.pipeline))
        except Flaw as flaw:
            self._flaw = flaw
            raise
        super().on_message_begin()
        cast("dict[str, Any]", self.scope).update({ABORT: self._drop, LAST: self._end_with})

    def on_url(self, url: bytes) -> None:
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._measure(len(name) + len(value) + 4)  # a colon, a space and a line's end
        if not self._head.is_complete:  # else it is a trailer, and no proxy looks at those (RFC 9110, section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head.is_complete = True
        version = self.parser.get_http_version()
        try:
            self.url = check(self.parser.get_method(), self.url, version, self.headers)
        except Flaw as flaw:
            self._flaw = flaw
            raise
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        super().on_headers_complete()

    def _measure(self, size: int) -> None:
        try:
            self._head.measure(size)
        except Flaw as flaw:
            self._flaw = flaw
            raise

    def _expect_head(self) -> None:
        if self._head_timer is None:
            timeout = self._context.config.header_timeout if self._surplus is None else _SURPLUS_TIMEOUT
            self._head_timer = self._context.loop.call_later(timeout, self._on_late_head)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._surplus is not None:
            self._refuse(*self._surplus)
        else:
            self._refuse(408, "late_request", f"no request within {self._context.config.header_timeout:g} s")

    # -- upgrades ---------------------------------------------------------------------------

    def _on_upgrade(self, rest: bytes) -> bytes:
        """Change the protocol; return what is to be parsed if it stays.

        Args:
            rest: what came behind the request's head.
        """
        version = self.parser.get_http_version()
        if self.is_websocket_handshake():
            if reason := refusal_of_handshake(version, self.headers, is_busy=self._busy):
                self._refuse(400, "bad_request" if version == "1.1" else "bad_handshake", reason)
                return b""
            if version == "1.1":
                self._hand_over(rest)
                return b""
        head = head_without_upgrade(self.parser.get_method(), self.url, version, self.headers)
        self.begin_anew()
        return head + rest

    def _hand_over(self, rest: bytes) -> None:
        """Have the connection be a WebSocket from now on."""
        self.handle_websocket_upgrade()
        websocket = cast("WebSocketProtocol", self.transport.get_protocol())
        if not self._context.clients.by_request:
            websocket.place, self._place = self._place, ""
        if rest:
            websocket.data_received(rest)

    # -- answers ----------------------------------------------------------------------------

    def _end_with(self, start: Start, content: bytes) -> None:
        """Answer the request whose body is not complete, which is the last that was begun."""
        self._answer_last(start, content, self.cycle)

    def _answer_last(self, start: Start, content: bytes, cycle: RequestResponseCycle) -> None:
        """Answer a request, and end the connection."""
        cycle.keep_alive = False
        if not self.transport.is_closing():
            self.transport.write(written(cycle, start, content))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self._linger()

    def _linger(self) -> None:
        """End the connection when the client has, or soon.

        Closing at once would answer what the client is still sending with a reset, which may overtake the answer.
        """
        self._forget_head()
        self._lingering = True
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._head_timer = self._context.loop.call_later(self._context.limits.close_timeout, self.transport.abort)
        else:
            self.transport.close()

    def _refuse(self, status: int, action: str, reason: str) -> None:
        """Answer what cannot be served, in its turn, and end the connection."""
        self._refused = True
        self._context.stats.refuse("http", status, action)
        logger.info(
            "connection answered with %d: %s",
            status,
            reason,
            extra=extra(action, shown_client(list(self.client) if self.client else None)),
        )
        answer = refusal(status)
        if not self._busy:
            self._end(answer)
        elif not self.cycle.more_body:
            self._refusal = answer
        elif self.pipeline:
            # It is the newest request's body, and others are not answered yet.
            self.drop_newest()
            self._refusal = answer
        elif self.cycle.response_started:
            self._drop()
        else:
            self._end(answer)

    def _end(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _drop(self) -> None:
        active = self._active
        if active is not None and active.scope["http_version"] == "1.0" and not self.transport.is_closing():
            # An end would complete an answer without a length.  A socket in the file system knows no reset.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
