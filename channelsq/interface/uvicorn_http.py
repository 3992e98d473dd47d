"""uvicorn's HTTP protocol, with the bounds that it lacks.

It reads headers of any size and waits for them for ever; here both end with an answer, and so does a
connection too many.  It also gives the application a way to drop a connection, and one to end it with an answer
while the client still sends.
"""

from __future__ import annotations

import asyncio
import functools
import http
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from httptools import HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from channelsq.interface.asking import ABORT, LAST, Asking, Refused
from channelsq.interface.exchange import Exchange, written
from channelsq.interface.http import BEGUN
from channelsq.interface.logs import extra, shown_client
from channelsq.interface.response import Start

if TYPE_CHECKING:
    from channelsq.interface.hub import Hub
    from channelsq.interface.websocket import WebSocketProtocol

#: Connections over the limit that are answered; beyond these they are dropped.
_ANSWERED = 100

#: Seconds until a connection too many is closed, if it does not ask for anything.
_SURPLUS_TIMEOUT = 1.0

logger = logging.getLogger("channelsq.interface.http")


class _HeadersTooLarge(Exception):
    """Raised inside the parser, to stop it."""


class HttpProtocol(HttpToolsProtocol):
    """One connection, until it becomes a WebSocket.

    Args:
        hub: what all connections share.
        config, server_state, app_state: uvicorn's own.
    """

    def __init__(
        self,
        hub: Hub,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, hub.loop)
        self.logger = logger
        self._hub = hub
        #: Larger bodies are looked at, or sent on in parts.
        self._body_at_once = min(hub.limits.body_chunk, hub.config.max_body_size or sys.maxsize)
        self._head_size = 0
        self._head_timer: asyncio.TimerHandle | None = None
        #: Why this connection is one too many: status, action and reason.
        self._surplus: tuple[int, str, str] | None = None
        #: What it, or the request that is answered, counts for.
        self._place = ""
        #: Whether all is said: what still comes is thrown away.
        self._lingering = False
        self._data = b""
        #: Whether the parser is at work, and what it came upon: a request whose body may be behind its head.
        self._parsing = False
        self._found: tuple[RequestResponseCycle, Any] | None = None
        #: The request that is answered without a task.
        self._exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        hub = self._hub
        hub.connections += 1
        most = hub.config.max_connections
        if hub.connections > most:
            self._surplus = 503, "too_many_connections", f"more than {most} connections (--max-connections)"
            if hub.connections > most + _ANSWERED:
                self._refuse(*self._surplus)
                return
        else:
            place = hub.clients.enter_connection(self.client)
            if place is None:
                self._surplus = 429, "too_many_per_client", hub.clients.reason
            self._place = place or ""
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hub.connections -= 1
        self._leave()
        self._forget_head()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.client_left()

    def data_received(self, data: bytes) -> None:
        self._hub.stats.http_received_bytes += len(data)
        if self._lingering:
            return
        if self._surplus is not None:
            self._refuse(*self._surplus)
            return
        self._data = data
        self._parsing = True
        super().data_received(data)
        self._parsing = False
        self._data = b""
        if self._found is not None:
            (cycle, app), self._found = self._found, None
            if not self.transport.is_closing():
                self._start_asgi_task(cycle, app)
        if self._lingering:
            return
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._forget_head()
        elif not self._busy:
            # Part of a request is here, or the next one of a connection that was kept alive.
            self._expect_head()
        else:
            self._forget_head()

    @property
    def is_beginning(self) -> bool:
        """Whether its first request is still to come."""
        return cast("RequestResponseCycle | None", self.cycle) is None and not self._surplus

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn says it is never None
        return cycle is not None and not cycle.response_complete

    # -- requests ---------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request whose turn it is; called by uvicorn."""
        if self._parsing:
            self._found = cycle, app
            return
        self._exchange = None
        if self._hub.status.has(cycle.scope["path"]):
            super()._start_asgi_task(cycle, cast(Any, self._hub.status))
            return
        if self._hub.clients.by_request and not self._enter(cycle):
            return
        if (
            self._hub.config.http == "direct"
            or cycle.more_body
            or cycle.waiting_for_100_continue
            or len(cycle.body) > self._body_at_once
        ):
            super()._start_asgi_task(cycle, app)
            return
        exchange = Exchange(self._hub, cycle, functools.partial(self._go_on, cycle, app))
        if cycle.body and len(cycle.body) > exchange.asking.room():
            super()._start_asgi_task(cycle, app)
            return
        self._exchange = exchange
        exchange.begin()

    def _enter(self, cycle: RequestResponseCycle) -> bool:
        """Count the request, or refuse it."""
        place = self._hub.clients.enter_request(cycle.scope["headers"], self.client)
        if place is None:
            asking = Asking(self._hub, cycle.scope)  # type: ignore[arg-type]  # the same, in uvicorn's words
            refused = Refused(429, "too_many_per_client", self._hub.clients.reason, ends=True)
            self._answer_last(*asking.refuse(refused), cycle)
            return False
        self._place = place
        return True

    def _leave(self) -> None:
        place, self._place = self._place, ""
        self._hub.clients.leave(place)

    def on_response_complete(self) -> None:
        """Go on with the next request; called by uvicorn."""
        if self._hub.clients.by_request:
            self._leave()
        super().on_response_complete()

    def _go_on(self, cycle: RequestResponseCycle, app: Any, exchange: Exchange) -> None:
        self._exchange = None
        cast("dict[str, Any]", cycle.scope)[BEGUN] = exchange
        super()._start_asgi_task(cycle, app)

    # -- bounds on the head -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size = 0
        cast("dict[str, Any]", self.scope).update({ABORT: self._drop, LAST: self._end_with})

    def on_url(self, url: bytes) -> None:
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._measure(len(name) + len(value))
        super().on_header(name, value)

    def _measure(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._hub.config.max_header_size:
            raise _HeadersTooLarge

    def _expect_head(self) -> None:
        if self._head_timer is None:
            timeout = self._hub.config.header_timeout if self._surplus is None else _SURPLUS_TIMEOUT
            self._head_timer = self._hub.loop.call_later(timeout, self._on_late_head)

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
            self._refuse(408, "late_request", f"no request within {self._hub.config.header_timeout:g} s")

    # -- answers ----------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed; called by uvicorn."""
        if self._head_size > self._hub.config.max_header_size:
            limit = self._hub.config.max_header_size
            self._refuse(431, "headers_too_large", f"request line and headers of more than {limit} bytes")
        else:
            self._refuse(400, "bad_request", msg)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol; called by uvicorn."""
        if self._busy:
            # Its predecessor's answer would end up among the frames.
            self._refuse(400, "bad_request", "an upgrade behind a request that is not answered yet")
            return
        # uvicorn drops what came with the request; the parser's exception says where that begins.
        upgrade = sys.exception()
        rest = self._data[upgrade.args[0] :] if isinstance(upgrade, HttpParserUpgrade) else b""
        super().handle_websocket_upgrade()
        socket = cast("WebSocketProtocol", self.transport.get_protocol())
        if not self._hub.clients.by_request:
            socket.place, self._place = self._place, ""
        if rest:
            socket.data_received(rest)

    def _should_upgrade(self) -> bool:
        # uvicorn would pass the request on as HTTP/1.1 whatever it was.
        return self.parser.get_http_version() == "1.1" and super()._should_upgrade()

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
            self._head_timer = self._hub.loop.call_later(self._hub.limits.close_timeout, self.transport.abort)
        else:
            self.transport.close()

    def _refuse(self, status: int, action: str, reason: str) -> None:
        phrase = http.HTTPStatus(status).phrase
        self._hub.stats.refuse("http", status, action)
        logger.info(
            "connection answered with %d: %s",
            status,
            reason,
            extra=extra(action, shown_client(list(self.client) if self.client else None)),
        )
        body = f"{status} {phrase}\n".encode()
        retry = "retry-after: 5\r\n" if status in (429, 503) else ""
        self.transport.write(
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n".encode()
            + body
        )
        self.transport.close()

    def _drop(self) -> None:
        self.transport.abort()
