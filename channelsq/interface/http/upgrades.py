"""Requests to upgrade the connection to another protocol: WebSocket, or one that the server ignores."""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: Iterable[Header]) -> bytes:
    """Return the head of a request without its upgrade (RFC 9110, section 7.8: a server may ignore it).

    The parser takes all bytes after the original head for the other protocol, also a body.

    Args:
        method, target, version: the parts of the request line.
        headers: names in lower case.
    """
    head = [method, b" ", target, b" HTTP/", version.encode(), b"\r\n"]
    for name, value in headers:
        if name == b"upgrade":
            continue
        if name == b"connection":
            tokens = [token for token in map(bytes.strip, value.split(b",")) if token.lower() != b"upgrade"]
            if not tokens:
                continue
            value = b", ".join(tokens)
        head += (name, b": ", value, b"\r\n")
    return b"".join((*head, b"\r\n"))


def refusal_of_handshake(version: str, headers: Iterable[Header], *, is_busy: bool) -> str:
    """Return the reason to refuse a WebSocket handshake; empty if it is acceptable.

    Args:
        version: the HTTP version of the request.
        headers: names in lower case.
        is_busy: whether the server still answers an earlier request of the connection.
    """
    if version == "1.0":
        # RFC 6455, section 4.2.1.  A page in place of the refusal would only hide the error.
        has_key = any(name == b"sec-websocket-key" for name, _ in headers)
        return "a WebSocket handshake in HTTP/1.0: nginx needs `proxy_http_version 1.1`" if has_key else ""
    # The response to the earlier request would end up among the frames.
    return "an upgrade after a request that is not answered yet" if is_busy else ""
