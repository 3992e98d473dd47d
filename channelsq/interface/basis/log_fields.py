"""The log lines of the interface server: an action and the connection, never a session key, a token or a frame."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import unquote_plus

from websockets.frames import Frame

from channelsq.core.names import TOKEN_SUBPROTOCOL

access = logging.getLogger("channelsq.access")

#: URL parameters whose values give access to sockets.
_SECRETS = frozenset({"page_ticket", "session_key", "ticket", "token"})

_PARAMETER = re.compile(r"(?:(?<=[&;?\s])|^)([^=&;?\s]*)=([^&;\s]*)")
_TOKEN = re.compile(re.escape(TOKEN_SUBPROTOCOL) + r"[^\s,;'\"]*")

#: Headers whose values are never logged.
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "sec-websocket-protocol", "set-cookie"})


def extra(action: str, connection: str = "") -> dict[str, Any]:
    """Return the ``extra=`` of a log record."""
    return {"action": action, "connection": connection}


def masked(text: str) -> str:
    """Mask the secrets in a text that may contain a URL's query or subprotocols."""
    return _TOKEN.sub(f"{TOKEN_SUBPROTOCOL}***", _PARAMETER.sub(_mask, text))


def _mask(found: re.Match[str]) -> str:
    return f"{found[1]}=***" if unquote_plus(found[1]).lower() in _SECRETS else found[0]


def shown_target(path: str, query_string: bytes | str) -> str:
    """Return a request's path and query as printable text, with tickets, tokens and session keys masked."""
    query = query_string.decode("latin-1") if isinstance(query_string, bytes) else query_string
    text = path + "?" + masked(query) if query else path
    # A client must not be able to forge a second log line.
    return printable(text)


def printable(text: str) -> str:
    """Escape all but printable ASCII, so that any terminal can show the text and it cannot forge a log line."""
    return text.encode("unicode_escape").decode("ascii")


def shown_client(client: list[Any] | None) -> str:
    """Return ``host:port`` of a client, or ``-`` for a client on a Unix socket."""
    return f"{client[0]}:{client[1]}" if client else "-"


class DiscreetLogger(logging.LoggerAdapter[logging.Logger]):
    """The logger of the ``websockets`` library, which at level DEBUG logs all traffic, without secrets."""

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line, without frames' payloads, headers that hold secrets, and secrets in a request's target."""
        if len(args) == 2 and str(args[0]).lower() in _SECRET_HEADERS:
            args = (args[0], "***")
        else:
            args = tuple(map(_shown, args))
        kwargs.pop("exc_info", None)  # the reason is logged elsewhere; its text may quote the request
        super().debug(msg, *args, **kwargs)


def _shown(value: object) -> object:
    if isinstance(value, Frame):
        return f"{value.opcode.name} [{len(value.data)} bytes]"
    return masked(value) if isinstance(value, str) else value
