"""A WebSocket's opening handshake: from the request to a ``websocket.connect``, and the HTTP responses."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from django.conf import settings
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.extensions import Extension
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from channelsq.interface.basis.addresses import is_encrypted, local_address
from channelsq.interface.basis.forwarded import believed
from channelsq.interface.basis.websockets_internals import SharedDeflate, SharedDeflateFactory, parse_subprotocol

EXTENSIONS = (SharedDeflateFactory(),)


def offered_subprotocols(request: Request) -> tuple[str, ...]:
    """Return the subprotocols that the client offers, in its order."""
    try:
        return tuple(
            name for value in request.headers.get_all("Sec-WebSocket-Protocol") for name in parse_subprotocol(value)
        )
    except InvalidHeader:
        return ()  # ServerProtocol.accept answers it with 400


def split_target(target: str) -> tuple[str, bytes]:
    """Return the decoded path and raw query string of a request's target."""
    raw_path, _, query = target.partition("?")
    return unquote(raw_path), query.encode("ascii", "replace")


def origin_and_host(request: Request) -> tuple[list[bytes], bytes]:
    """Return the values of the ``Origin`` headers, and the requested host, as Django reads it."""
    origins = [value.encode("latin-1", "surrogateescape") for value in request.headers.get_all("Origin")]
    forwarded = request.headers.get_all("X-Forwarded-Host") if settings.USE_X_FORWARDED_HOST else []
    hosts = forwarded or request.headers.get_all("Host")
    return origins, (hosts[-1] if hosts else "").encode("latin-1", "surrogateescape")


def connect_content(
    request: Request,
    transport: asyncio.Transport,
    client: list[Any] | None,
    *,
    root_path: str,
    proxy_headers: bool,
) -> dict[str, Any]:
    """Return the part of a ``websocket.connect`` that describes the request (its path goes with every message)."""
    headers = [
        [name.lower().encode("latin-1"), value.encode("latin-1", "surrogateescape")]
        for name, value in request.headers.raw_items()
    ]
    scheme = "wss" if is_encrypted(transport) else "ws"
    server = local_address(transport)
    if proxy_headers:
        client, scheme = believed(headers, client, scheme)
    return {
        "scheme": scheme,
        "query_string": split_target(request.path)[1],
        "root_path": root_path,
        "headers": headers,
        "client": client,
        "server": list(server) if server else None,
    }


def window(extensions: Sequence[Extension]) -> int:
    """Return the bits of the window that compresses messages to a client; 0 for no compression."""
    return next((each.local_max_window_bits for each in extensions if isinstance(each, SharedDeflate)), 0)


def answer_to(wire: ServerProtocol, request: Request) -> Response:
    """Return the answer to a handshake; ``wire.handshake_exc`` has its error, if any."""
    try:
        return wire.accept(request)
    except UnicodeEncodeError:  # websockets before 17 quotes a header's octets in its refusal, which it cannot encode
        return plain_response(400)


def plain_response(status: int, more: str = "", retry_after: int | None = None) -> Response:
    """Return a small HTTP response in place of the handshake's; its body is the status, then ``more``."""
    phrase = http.HTTPStatus(status).phrase
    body = f"{status} {phrase}{more}\n".encode()
    headers = Headers(
        [
            ("Date", formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
    )
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Response(status, phrase, headers, body)
