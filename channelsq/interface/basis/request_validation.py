"""Checks of a request that the parser does not make.

The parser (llhttp) refuses ambiguous line ends, headers, lengths and chunks.  A server behind a proxy must also agree
with the proxy on the rest: the host that is meant, the end of a body, and the set of headers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: RFC 3986, section 3.2.2, with a port: no character that could begin a path, a user or a second host.
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%~_-]+\]|[0-9A-Za-z._~%!$&'()*+;=-]*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_WATCHED = frozenset({b"expect", b"host", b"transfer-encoding"})

#: Methods of other protocols that the parser accepts, and tunnels, which this server does not offer.
_FOREIGN = frozenset(
    {
        b"ANNOUNCE", b"CONNECT", b"DESCRIBE", b"FLUSH", b"GET_PARAMETER", b"PAUSE", b"PLAY", b"PRI", b"RECORD",
        b"REDIRECT", b"SETUP", b"SET_PARAMETER", b"SOURCE", b"TEARDOWN",
    }
)  # fmt: skip

#: Control characters, which no path of a handshake needs: a pattern's ``$`` matches before a line break.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class Flaw(Exception):
    """A request that the server refuses.

    Args:
        status: the status of the response.
        reason: the reason for the log.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def check(method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Check a request's head, header names in lower case; return its target without scheme and host.

    Raises:
        Flaw: the server must refuse the request.
    """
    if version not in ("1.1", "1.0"):
        raise Flaw(505, f"HTTP/{version} is not supported")
    if method in _FOREIGN:
        raise Flaw(501, f"the method {method.decode()} is not supported")
    host: bytes | None = None
    for name, value in headers:
        if name not in _WATCHED:
            continue
        if name == b"host":
            # RFC 9112, section 3.2.
            if host is not None:
                raise Flaw(400, "more than one Host header")
            if not _HOST.fullmatch(value):
                raise Flaw(400, f"{value!r:.80} is not a host")
            host = value
        elif name == b"transfer-encoding":
            # RFC 9112, section 6.1: this server supports no other coding, and HTTP/1.0 has none.
            if version == "1.0":
                raise Flaw(400, "Transfer-Encoding in HTTP/1.0")
            if not value:
                raise Flaw(400, "Transfer-Encoding without a coding")
            if value.lower() != b"chunked":
                raise Flaw(501, f"the transfer coding {value!r:.80}; only chunked is supported")
        elif value.lower() != b"100-continue":
            # RFC 9110, section 10.1.1.
            raise Flaw(417, f"the expectation {value!r:.80}; only 100-continue is supported")
    if host is None and version == "1.1":
        raise Flaw(400, "no Host header")
    if target[:1] == b"/" and b"#" not in target:
        return target
    return _origin_form(method, target, host)


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    if b"#" in target:
        raise Flaw(400, f"a fragment in the target {target!r:.80}")
    if target == b"*":
        if method != b"OPTIONS":
            raise Flaw(400, f"the target * with {method.decode()}")
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Flaw(400, f"the target {target!r:.80} is not a path")
    authority, rest = absolute.groups()
    # RFC 9112, section 3.2.2: the target's host counts.  If they differ, a proxy may have checked the other one.
    if host is not None and authority.lower() != host.lower():
        raise Flaw(400, f"the target is at {authority!r:.80}, the Host header says {host!r:.80}")
    if not authority or not _HOST.fullmatch(authority):
        raise Flaw(400, f"{authority!r:.80} is not a host")
    return rest if rest.startswith(b"/") else b"/" + rest


def has_controls(path: str) -> bool:
    """Return whether a decoded path contains control characters."""
    return _CONTROLS.search(path) is not None
