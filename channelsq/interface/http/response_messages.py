"""The conversion of an application's response messages to checked statuses, headers and contents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

#: RFC 9110, section 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

#: Headers that only this server may set: they describe the connection, not the response.
OWN_HEADERS = frozenset({b"connection", b"date", b"keep-alive", b"transfer-encoding", b"upgrade"})

Header = tuple[bytes, bytes]


class BadResponse(Exception):
    """A response message that cannot be sent to a client; the text names key and value."""


@dataclass(frozen=True, slots=True)
class Start:
    """Status and headers of a response, names in lower case."""

    status: int
    headers: list[Header]
    #: The size of the content in bytes, according to the headers.
    length: int | None
    #: True if the response must not have content.
    bodiless: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a response's content."""

    content: bytes
    more: bool


def read_start(message: dict[str, Any], method: str) -> Start:
    """Return status and headers from a response's first message.

    Raises:
        BadResponse: they cannot be sent.
    """
    status = message.get("status")
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise BadResponse(f"'status' must be an int from 200 to 599, not {status!r}")
    headers, length = _headers(message.get("headers") or [])
    empty = status in (204, 304)
    if empty:
        # A 204 must not have this header, and a 304's would describe content that does not follow.
        headers, length = [each for each in headers if each[0] != b"content-length"], None
    part = read_part(message)
    bodiless = empty or method == "HEAD"
    if not bodiless:
        if not part.more and length is None:
            length = len(part.content)
            headers.append((b"content-length", b"%d" % length))
        if length is not None and (len(part.content) > length or (not part.more and len(part.content) < length)):
            raise BadResponse(f"'content-length' is {length}, but the content has {len(part.content)} bytes")
    return Start(status, headers, length, bodiless)


def read_part(message: dict[str, Any]) -> Part:
    """Return the content in a response message.

    Raises:
        BadResponse: it cannot be sent.
    """
    content = message.get("content")
    if content is None:
        content = b""
    elif isinstance(content, str):
        content = content.encode("utf-8", "replace")
    elif not isinstance(content, bytes):
        raise BadResponse(f"'content' must be bytes, not {type(content).__name__}")
    return Part(content, bool(message.get("more_content")))


def _headers(given: Any) -> tuple[list[Header], int | None]:
    if not isinstance(given, (list, tuple)):
        raise BadResponse(f"'headers' must be a list of [name, value], not {type(given).__name__}")
    headers: list[Header] = []
    length: int | None = None
    for item in given:
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise BadResponse(f"'headers' must be a list of [name, value]; {item!r:.80} is not one")
        name, value = _bytes(item[0]).lower(), _bytes(item[1])
        if not _TOKEN.fullmatch(name):
            raise BadResponse(f"{name!r:.80} is not a header's name")
        if _FORBIDDEN.search(value):
            raise BadResponse(f"the header {name.decode()!r} holds a line break or control character: {value!r:.80}")
        if name in OWN_HEADERS:
            continue
        if name == b"content-length":
            if not re.fullmatch(rb"\d{1,18}", value.strip()) or (length is not None and length != int(value)):
                raise BadResponse(f"'content-length' must be one number, not {value!r:.40}")
            if length is not None:
                continue
            length = int(value)
        headers.append((name, value))
    return headers, length


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            raise BadResponse(f"a header holds {value!r:.80}, which Latin-1 cannot encode") from None
    raise BadResponse(f"a header must be bytes or str, not {type(value).__name__}")
