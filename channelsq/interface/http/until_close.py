"""Responses that end with their connection, for clients of HTTP/1.0, which do not support chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

from channelsq.interface.http.uvicorn_http_internals import RequestResponseCycle


class UntilClose:
    """An ASGI application whose responses without a length are not chunked (RFC 9112, section 6.1).

    Args:
        app: produces the response.
        cycle: uvicorn's cycle of the request.
        break_off: called if the response ends too early; otherwise the client could not detect it.
    """

    def __init__(self, app: Any, cycle: RequestResponseCycle, break_off: Callable[[], None]) -> None:
        self._app = app
        self._cycle = cycle
        self._break_off = break_off
        self._send: ASGISendCallable
        self._ends_with_connection = False

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        self._send = send
        cycle = self._cycle
        try:
            await self._app(scope, receive, self._pass_on)
        finally:
            if self._ends_with_connection and not cycle.response_complete and not cycle.disconnected:
                self._break_off()

    async def _pass_on(self, event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            event = {
                **event,
                "headers": [*event["headers"], (b"connection", b"close")],
            }  # older versions of uvicorn add none
            if all(name.lower() != b"content-length" for name, _ in event["headers"]):
                self._ends_with_connection = True
                self._cycle.chunked_encoding = False  # uvicorn would replace None with True
        elif event["type"] == "http.response.body" and self._ends_with_connection:
            # uvicorn counts the bytes left to send: after this part there are none.
            self._cycle.expected_content_length = len(event.get("body", b""))
        await self._send(event)
