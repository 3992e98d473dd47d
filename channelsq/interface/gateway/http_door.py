"""The HTTP server of a gateway: webhooks, and the server's own pages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import uvicorn
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra, printable
from channelsq.interface.basis.uvicorn_config import uvicorn_config
from channelsq.interface.gateway.gateway_config import GatewayConfig
from channelsq.interface.gateway.outcomes import Rejected, TryLater
from channelsq.interface.gateway.uvicorn_gateway_internals import BoundedHttpProtocol, HeadLimits

logger = logging.getLogger("channelsq.interface.gateway")

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A complete request."""

    method: str
    #: The path as the client wrote it, with its escapes.
    path: str
    #: The query without its question mark, as the client wrote it.
    query: str
    #: The headers by name in lower case; repeated ones are joined by commas.
    headers: Mapping[str, str]
    body: bytes
    #: The address of the connection, ``host:port``.
    client: str


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete response."""

    status: int = 200
    body: bytes = b""
    content_type: str = _TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


#: Answers a request; it may raise :class:`TryLater` (503 with ``Retry-After``) and :class:`Rejected` (400).
Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class HttpDoor(uvicorn.Server):
    """An HTTP server in the gateway's event loop.

    Args:
        config: the gateway's settings.
        stats: the server's counters.
        handler: answers the requests.
    """

    def __init__(self, config: GatewayConfig, stats: Counters, handler: Handler) -> None:
        self._settings = config
        self._stats = stats
        self._handler = handler
        self._listening = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        limits = HeadLimits(
            config.max_connections,
            config.max_header_size,
            config.request_timeout,
            functools.partial(stats.refuse, "http"),
        )
        super().__init__(
            uvicorn_config(
                self._answer,
                keep_alive_timeout=config.keep_alive_timeout,
                http=functools.partial(_protocol, limits),
                ws="none",
                timeout_graceful_shutdown=max(1, round(config.drain_window)),
            )
        )

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets; return when clients can connect.

        Raises:
            OSError: another process listens there.
        """
        self._serving = asyncio.ensure_future(self.serve(list(sockets)))
        ready = asyncio.ensure_future(self._listening.wait())
        await asyncio.wait([self._serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await self._serving

    async def stop(self) -> None:
        """Stop listening, answer the requests that were begun, and close all connections."""
        if self._serving is not None:
            self.should_exit = True
            await self._serving

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self.server_state.connections)

    # -- called by uvicorn

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the gateway."""
        yield

    async def _answer(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        try:
            request = await self._read(scope, receive)
            response = request if isinstance(request, HttpResponse) else await self._handle(request)
        except _ClientLeft:
            return
        if response.status >= 400:
            self._stats.refuse("http", response.status, "answer")
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(response.body)).encode()),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.items()),
        ]
        if response.status in (408, 413):  # the rest of the body is not read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers, "trailers": False})
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _read(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> HttpRequest | HttpResponse:
        """Return the request, or the response to one that is too large or too slow."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length = headers.get("content-length", "")
        limit = self._settings.max_body_size
        too_large = HttpResponse(413, b"the body is too large\n")
        if length.isdigit() and int(length) > limit:
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise _ClientLeft
                    assert event["type"] == "http.request"
                    body += event["body"]
                    if len(body) > limit:
                        return too_large
                    if not event["more_body"]:
                        break
        except TimeoutError:
            return HttpResponse(408, b"the body did not arrive in time\n")
        client = scope["client"]
        return HttpRequest(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            headers,
            bytes(body),
            f"{client[0]}:{client[1]}" if client else "-",
        )

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        try:
            return await self._handler(request)
        except TryLater as error:
            logger.warning("%s got 503: %s", printable(request.path), error, extra=extra("try_later", request.client))
            after = 5 if error.after is None else max(1, round(error.after))
            return HttpResponse(503, f"{error.reason}\n".encode(), headers={"retry-after": str(after)})
        except Rejected as error:
            logger.warning("%s got 400: %s", printable(request.path), error, extra=extra("rejected", request.client))
            return HttpResponse(400, f"{error.reason}\n".encode())
        except Exception:  # of any gateway
            logger.exception("%s got 500", printable(request.path), extra=extra("webhook_failed", request.client))
            return HttpResponse(500, b"the server failed\n")


class _ClientLeft(Exception):
    """The client has closed the connection before its request was complete."""


def _protocol(
    limits: HeadLimits,
    config: uvicorn.Config,
    server_state: object,
    app_state: dict[str, object],
    _loop: asyncio.AbstractEventLoop | None = None,
) -> BoundedHttpProtocol:
    return BoundedHttpProtocol(limits, config, server_state, app_state, _loop)  # type: ignore[arg-type]
