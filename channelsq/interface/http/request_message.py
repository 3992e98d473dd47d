"""A request as a message for workers, and its log lines."""

from __future__ import annotations

import logging
from typing import Any

from asgiref.typing import HTTPScope

from channelsq.core import names
from channelsq.core.wire_version import WIRE_VERSION
from channelsq.delivery.attempts import WIRE_KEY
from channelsq.interface.basis.forwarded import believed
from channelsq.interface.basis.log_fields import access, extra, shown_client, shown_target
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.http.response_messages import Start

logger = logging.getLogger("channelsq.interface.http")

#: The scope's key for the function that drops the connection; see ``uvicorn_http``.
ABORT = "channelsq.abort"

#: The scope's key for the function that sends a response, from its head and content, and ends the connection.
LAST = "channelsq.last"

_TEXTS = {
    408: "408 Request Timeout: the request's body came too slowly",
    413: "413 Payload Too Large",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    502: "502 Bad Gateway: the application sent no valid response",
    503: "503 Service Unavailable: please try again soon",
    504: "504 Gateway Timeout: the application did not answer in time",
}

#: Bytes of a request's message beside its headers and its body.
_ROOM = 4096


class Refused(Exception):
    """This server itself answers the request.

    Args:
        status, action, reason: for the response and the log.
        ends: whether the connection must end with the response, as the rest of the body is not read.
    """

    def __init__(self, status: int, action: str, reason: object, *, ends: bool = False) -> None:
        self.status = status
        self.action = action
        self.ends = ends
        super().__init__(str(reason))


class RequestMessage:
    """One request.

    Args:
        context: the state that all connections share.
        scope: uvicorn's scope.
    """

    __slots__ = ("_context", "begun", "channel", "client", "handed_out", "headers", "scheme", "scope")

    def __init__(self, context: ServerContext, scope: HTTPScope) -> None:
        self._context = context
        self.scope = scope
        #: The client's own channel.
        self.channel = context.new_channel("http.response!")
        self.headers = [[name, value] for name, value in scope["headers"]]
        client = scope["client"]
        #: The client's address and the scheme, as a trusted proxy reports them.
        self.client: list[Any] | None = list(client) if client else None
        self.scheme: str = scope["scheme"]
        if context.config.proxy_headers:
            self.client, self.scheme = believed(self.headers, self.client, self.scheme)
        #: The time of the request, and of its publication; None once the workers' response has begun.
        self.begun = context.loop.time()
        self.handed_out: float | None = self.begun

    def room(self) -> int:
        """Return the number of bytes of a body that fit in the message."""
        return self._context.prepare_limit() - sum(len(name) + len(value) + 10 for name, value in self.headers) - _ROOM

    def message(self, body: bytes, body_channel: str | None) -> dict[str, Any]:
        """Return the ``http.request`` message."""
        scope = self.scope
        server = scope["server"]
        return {
            "reply_channel": self.channel,
            "http_version": scope["http_version"],
            "method": scope["method"],
            "scheme": self.scheme,
            "path": scope["path"],
            "query_string": scope["query_string"],
            "root_path": self._context.config.root_path,
            "headers": self.headers,
            "client": self.client,
            "server": list(server) if server and server[1] is not None else None,
            "body": body,
            "body_channel": body_channel,
            WIRE_KEY: WIRE_VERSION,
        }

    def say_disconnect(self) -> None:
        """Tell the workers that the client has left."""
        message = {"reply_channel": self.channel, "path": self.scope["path"]}
        self._context.link.publish(self._context.prepare(names.HTTP_DISCONNECT, message))

    def refuse(self, refused: Refused) -> tuple[Start, bytes]:
        """Record a refusal; return the head and the content of the response."""
        status = refused.status
        self._context.stats.refuse("http", status, refused.action)
        level = logging.INFO if status < 500 else logging.WARNING
        self.log(level, refused.action, f"answered with {status}: {refused}")
        content = _TEXTS[status].encode() + b"\n"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(content)),
        ]
        if status in (429, 503):
            headers.append((b"retry-after", b"1"))
        return Start(status, headers, len(content), bodiless=False), content

    def abort(self, action: str, reason: object) -> None:
        """Record that the response, which has begun, is cut off."""
        self._context.stats.cut(action)
        self.log(logging.WARNING, action, f"the response was cut off: {reason}")

    def note_reply(self) -> None:
        """Measure the time of the application's response, at its first part."""
        measures = self._context.measures
        if measures is not None and self.handed_out is not None:
            measures.reply[names.HTTP_REQUEST].observe(self._context.loop.time() - self.handed_out)
            self.handed_out = None

    def note_end(self, status: int | None, sent: int) -> None:
        """Count, measure and log the end of the request, as far as configured.

        Args:
            status: the status of the response; None without a response.
            sent: the number of content bytes.
        """
        self._context.stats.http_sent_bytes += sent
        if status is not None and self._context.measures is not None:
            self._context.measures.answered(status, self.begun)
        if self._context.config.access_log:
            self._log_access(status, sent)

    # -- logs -------------------------------------------------------------------------------

    def _target(self) -> str:
        return shown_target(self.scope["path"], self.scope["query_string"])

    def log(self, level: int, action: str, text: str) -> None:
        """Log an event of the request."""
        logger.log(level, "%s %s: %s", self.scope["method"], self._target(), text, extra=extra(action, self.channel))

    def _log_access(self, status: int | None, sent: int) -> None:
        access.info(
            '%s "%s %s" %s %d bytes in %.3f s',
            shown_client(self.client),
            self.scope["method"],
            self._target(),
            "-" if status is None else status,
            sent,
            self._context.loop.time() - self.begun,
        )
