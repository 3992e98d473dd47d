"""uvicorn's HTTP protocol with additional limits.

uvicorn reads headers of any size and waits for them without limit.  Here both end with a response, as do surplus
connections and requests that ``request_validation`` refuses.  The application can also drop a connection, and end it
with a response while the client still sends.  A client that has closed its sending side gets its response, and a client
of HTTP/1.0 gets no chunks.
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

#: Connections over the limit that get a response; further ones are dropped.
_ANSWERED = 100

#: Seconds until a surplus connection is closed, if it sends no request.
_SURPLUS_TIMEOUT = 1.0

#: The value of SO_LINGER with which the end of a connection is a reset.
_RESET = struct.pack("ii", 1, 0)

#: The action that the log has for a flaw, by its status.
_ACTIONS = {429: "too_many_pipelined", 431: "headers_too_large"}

logger = logging.getLogger("channelsq.interface.http")


class HttpProtocol(UvicornHttpProtocol):
    """One connection, until it becomes a WebSocket.

    Args:
        context: the state that all connections share.
        status: the server's own pages.
        config, server_state, app_state: those of uvicorn.
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
        #: The server checks larger bodies, or forwards them in parts.
        self._body_at_once = min(context.limits.body_chunk, context.config.max_body_size or sys.maxsize)
        self._head = HeadBounds(context.config.max_header_size, context.limits.pipelined)
        self._head_timer: asyncio.TimerHandle | None = None
        #: The refusal of a surplus connection: status, action and reason.
        self._surplus: tuple[int, str, str] | None = None
        #: The place in the client's count that the connection holds, or the request that is answered.
        self._place = ""
        #: Whether the response is complete: further input is discarded.
        self._lingering = False
        #: The reason why the parser was stopped.
        self._flaw: Flaw | None = None
        #: Whether something was refused, and the response to it while earlier requests are not answered.
        self._refused = False
        self._refusal = b""
        #: The request whose turn it is; ``cycle`` is the newest.
        self._active: RequestResponseCycle | None = None
        #: Whether the parser is at work, and the new request that it found: its body may follow its head.
        self._parsing = False
        self._found: tuple[RequestResponseCycle, Any] | None = None
        #: The request that is answered without a task.
        self._single: SingleResponse | None = None
        #: Checks whether the client is there, once it has closed its sending side.
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
            # uvicorn tells only the newest request.
            active.disconnected = True
            active.message_event.set()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's
        """Keep the connection of a client that closes its sending side until its requests are answered.

        Return False, which closes the connection, if no complete request waits for a response.
        """
        if self._half_closed is not None:
            return True
        transport = self.transport
        last = self._last_whole()
        if self._lingering or last is None or last.response_complete or not transport.can_write_eof():
            return False
        if last.response_started and last.scope["http_version"] == "1.0":
            # The transport was reading, and does not report whether it still does.
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
        """Return the newest request with a complete body, apart from a later one with an incomplete body."""
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
            # A part of a request is here, or the next one of a connection that was kept alive.
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
        """True until its first request is here."""
        return self.newest is None and not self._surplus

    @property
    def _busy(self) -> bool:
        """True while a request is being answered."""
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
        """Continue with the next request; called by uvicorn."""
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

    # -- limits of the head -----------------------------------------------------------------

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
        if not self._head.is_complete:  # else it is a trailer, which no proxy inspects (RFC 9110, section 6.5.1)
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
        """Change the protocol; return the bytes to parse if it stays.

        Args:
            rest: the bytes after the request's head.
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
        """Turn the connection into a WebSocket from now on."""
        self.handle_websocket_upgrade()
        websocket = cast("WebSocketProtocol", self.transport.get_protocol())
        if not self._context.clients.by_request:
            websocket.place, self._place = self._place, ""
        if rest:
            websocket.data_received(rest)

    # -- responses --------------------------------------------------------------------------

    def _end_with(self, start: Start, content: bytes) -> None:
        """Answer the request whose body is incomplete, which is the last that has begun."""
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
        """End the connection when the client has closed it, or soon.

        If the server closed it at once, the system would answer further bytes of the client with a reset, which may
        overtake the response.
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
        """Refuse a request in its turn, and end the connection."""
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
            # The body belongs to the newest request, and earlier ones are not answered yet.
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
            # An orderly end would complete a response without a length.  A Unix socket has no reset.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
