"""The messages that an application may send to a WebSocket: their keys and values."""

from __future__ import annotations

from typing import Any

#: Close codes that RFC 6455 and its registry let an endpoint send, below the range for applications.
_REGISTERED_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

#: Bytes of a close frame after its code (RFC 6455, section 5.5).
_REASON_BYTES = 123

#: The valid keys of an application's message to a WebSocket; the last keys describe messages to the application.
KNOWN_KEYS = frozenset(
    {"accept", "text", "bytes", "close", "reason", "subprotocol", "droppable", "done", "took", "failed"}
)


class BadReply(Exception):
    """An invalid message of the application to a WebSocket; the text names key and value."""


def payload_of(message: dict[str, Any]) -> str | bytes | None:
    """Return the text or the bytes that a message sends to the client.

    Raises:
        BadReply: it has both, or a value of another type.
    """
    text, data = message.get("text"), message.get("bytes")
    if text is not None and data is not None:
        raise BadReply("a message has both 'text' and 'bytes'; send one of them")
    if text is not None and not isinstance(text, str):
        remedy = "send bytes as {'bytes': …}" if isinstance(text, bytes) else "write json.dumps(…)"
        raise BadReply(f"'text' must be a str, not {type(text).__name__}; {remedy}")
    if data is not None and not isinstance(data, bytes):
        remedy = "; send text as {'text': …}" if isinstance(data, str) else ""
        raise BadReply(f"'bytes' must be bytes, not {type(data).__name__}{remedy}")
    return text if data is None else data


def close_code(message: dict[str, Any]) -> int | None:
    """Return the code with which a message closes the socket; None if it does not.

    Raises:
        BadReply: an endpoint cannot send the code.
    """
    close = message.get("close")
    if close is None or close is False:
        return None
    if close is True:
        return 1000
    if not isinstance(close, int) or not (close in _REGISTERED_CODES or 3000 <= close <= 4999):
        raise BadReply(f"'close' must be True or a close code (1000, 3000-4999), not {close!r}")
    return close


def close_reason(message: dict[str, Any]) -> str:
    """Return the reason with which a message closes the socket, cut to the room in a close frame.

    Raises:
        BadReply: the reason is not a str.
    """
    reason = message.get("reason")
    if reason is None:
        return ""
    if not isinstance(reason, str):
        raise BadReply(f"'reason' must be a str, not {reason!r:.200}")
    return reason.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore")
