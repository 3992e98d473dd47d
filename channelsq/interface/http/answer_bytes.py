"""Whole responses as bytes."""

from __future__ import annotations

import http

from channelsq.interface.http.response_messages import Start
from channelsq.interface.http.uvicorn_http_internals import RequestResponseCycle, status_line


def written(cycle: RequestResponseCycle, start: Start, content: bytes) -> bytes:
    """Return a whole response; ``content`` is left out for HEAD.

    Args:
        cycle: the request; its ``keep_alive`` says whether the connection ends.
        start: status and headers.
        content: the body.
    """
    parts = [status_line(start.status)]
    for name, value in (*cycle.default_headers, *start.headers):
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", content if cycle.scope["method"] != "HEAD" else b"")
    return b"".join(parts)


def refusal(status: int) -> bytes:
    """Return the response to a request that cannot be read, or that the server refuses."""
    phrase = http.HTTPStatus(status).phrase
    body = f"{status} {phrase}\n".encode()
    retry = "retry-after: 5\r\n" if status in (429, 503) else ""
    return (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n".encode()
        + body
    )
