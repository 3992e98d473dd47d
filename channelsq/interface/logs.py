"""How the interface writes log lines: an action, the connection, and never a session key."""

from __future__ import annotations

import logging
import re
from typing import Any

access = logging.getLogger("channelsq.access")

_SECRET = re.compile(r"(?i)((?:^|[?&;])session_key=)[^&;]*")


def extra(action: str, connection: str = "") -> dict[str, Any]:
    """The ``extra=`` of a log record."""
    return {"action": action, "connection": connection}


def shown_target(path: str, query_string: bytes | str) -> str:
    """A request's path and query as one printable text, the value of ``session_key`` masked."""
    query = query_string.decode("latin-1") if isinstance(query_string, bytes) else query_string
    text = path + "?" + _SECRET.sub(r"\1***", query) if query else path
    # What a client sends must not be able to forge a second log line.
    return text.encode("unicode_escape").decode("ascii")


def shown_client(client: list[Any] | None) -> str:
    """``host:port`` of a client, or ``-`` for one on a Unix socket."""
    return f"{client[0]}:{client[1]}" if client else "-"
