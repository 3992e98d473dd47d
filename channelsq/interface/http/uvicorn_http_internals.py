"""uvicorn's HTTP protocol on ``httptools``, with names for the parts of it that another protocol overrides or uses.

These are private parts of uvicorn; ``tests/unit/interface/http/test_uvicorn_http_internals.py`` pins them.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from httptools import HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from channelsq.interface.basis.uvicorn_state_internals import ServerState

__all__ = ["RequestResponseCycle", "UvicornHttpProtocol", "status_line"]


class UvicornHttpProtocol(HttpToolsProtocol):
    """One connection.

    A *cycle* is a request with its response.  Further requests may come before the response: they wait in ``pipeline``,
    newest first.

    Args:
        config, server_state, app_state: those of uvicorn.
        loop: the event loop.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config, server_state, app_state, loop)

    @property
    def newest(self) -> RequestResponseCycle | None:
        """The request that came last; None before the first."""
        return cast("RequestResponseCycle | None", self.cycle)  # uvicorn declares that it is never None

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request whose turn it is; called when its head is here, and the one before it is answered."""
        self.run_application(cycle, app)

    def run_application(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request by an ASGI application, in a task of its own."""
        super()._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.start(cycle, app)

    def is_websocket_handshake(self) -> bool:
        """Return whether the request whose head is here asks for a WebSocket, and the server supports it."""
        return super()._should_upgrade()

    def _should_upgrade(self) -> bool:
        # Called while the parser is at work.  The parser stops after the head of any upgrade request with an exception;
        # the server decides about the upgrade then.
        return True

    def begin_anew(self) -> None:
        """Parse the next bytes as a new request."""
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn

    def forget_keep_alive(self) -> None:
        """Cancel the timeout of an idle connection: bytes have arrived."""
        self._unset_keepalive_if_required()

    def drop_newest(self) -> None:
        """Discard the request that came last and waits for its turn; only if ``pipeline`` has one."""
        self.pipeline.popleft()


def status_line(status: int) -> bytes:
    """Return the status line of a response, with its line end."""
    return STATUS_LINE[status]
