"""uvicorn's HTTP protocol with limits on its connections and on the head of a request.

It overrides private parts of uvicorn; ``tests/unit/interface/gateway/test_uvicorn_gateway_internals.py`` pins them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from channelsq.interface.basis.log_fields import extra
from channelsq.interface.basis.uvicorn_state_internals import ServerState

logger = logging.getLogger("channelsq.interface.gateway")


class HeadLimits(NamedTuple):
    """The limits of connections and heads, and the function that counts what they refuse."""

    connections: int
    header_size: int
    #: Seconds for the head of a request.
    seconds: float
    #: Called with status and reason.
    refuse: Callable[[int, str], None]


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        limits: the limits.
        config, server_state, app_state: those of uvicorn.
        loop: the event loop.
    """

    def __init__(
        self,
        limits: HeadLimits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._limits = limits
        self._is_refused = False
        self._in_head = True
        self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "too_many_connections", b"retry-after: 5\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_size:
                self._refuse(431, "headers_too_large")

    def on_message_begin(self) -> None:
        """Begin a request; the parser calls it."""
        if not self._in_head:
            self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End the head of a request; the parser calls it."""
        self._in_head, self._head_bytes = False, 0
        self._cancel()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._in_head = True
        self._cancel()
        self._late = self.loop.call_later(self._limits.seconds, self._refuse, 408, "late_request")

    def _cancel(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: int, reason: str, headers: bytes = b"") -> None:
        self._is_refused = True
        self._cancel()
        self._limits.refuse(status, reason)
        logger.warning("a connection got %d: %s", status, reason, extra=extra(reason))
        self.transport.write(STATUS_LINE[status] + headers + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
