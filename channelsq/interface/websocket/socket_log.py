"""The counters and log lines of one WebSocket."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from channelsq.interface.basis.log_fields import access, extra, masked, printable, shown_client
from channelsq.interface.context.server_context import ServerContext

logger = logging.getLogger("channelsq.interface.websocket")

#: The keys that an application may use, for the log; and the number of other keys that a process remembers as logged.
#: Seconds between two lines about sockets that no consumer accepts.
_UNACCEPTED_EVERY = 60.0

_KNOWN = "accept, text, bytes, close, reason and subprotocol"
_MOST_KEYS = 100


class SocketLog:
    """Counters and log lines of one WebSocket.

    Args:
        context: the state that all connections share.
        client: host and port; None for a client on a Unix socket.
    """

    __slots__ = ("_context", "_is_speed_logged", "client", "id", "target")

    def __init__(self, context: ServerContext, client: list[Any] | None) -> None:
        self._context = context
        self.client = client
        self._is_speed_logged = False
        #: The id of the socket in log records: its address, then its reply channel.
        self.id = shown_client(client)
        #: Path and query, printable.
        self.target = ""

    def accepted(self) -> None:
        """Count a completed handshake."""
        self._context.stats.count("websocket.accepted")
        self._access("accepted")

    def refused(self, status: int, cause: str, reason: str) -> None:
        """Count a refused handshake under ``cause``, and log its ``reason``."""
        self._context.stats.refuse("websocket", status, cause)
        level = logging.WARNING if status >= 500 else logging.INFO
        self._log(level, "handshake_refused", "handshake answered with %d: %s", status, printable(masked(reason)))
        self._access(f"refused {status}")

    def ended(self, code: int, seconds: float) -> None:
        """Count and log the end of the socket."""
        self._context.stats.count("websocket.ended")
        self._access(f"closed {code} after {seconds:.1f} s")

    def too_big(self, error: Exception) -> None:
        """Log that the client sent too much."""
        self._broken("websocket.too_big", "message_too_big", error)

    def bad_frame(self, error: Exception) -> None:
        """Log that the client broke the protocol."""
        self._broken("websocket.bad_frames", "bad_frame", error)

    def bad_text(self, error: UnicodeDecodeError) -> None:
        """Log that the client sent text that is not UTF-8."""
        what = "closed, the client sent text that is not UTF-8: %s"
        self._note(logging.INFO, "websocket.bad_frames", "bad_text", what, error)

    def bad_reply(self, error: Exception) -> None:
        """Log an invalid message of the application."""
        what = "a message from the application was ignored: %s"
        self._note(logging.WARNING, "websocket.bad_replies", "bad_reply", what, error)

    def unknown_keys(self, keys: Iterable[str]) -> None:
        """Log unknown keys of the application's message; a process logs each key once.

        They may be a mistake, or come from a worker that is newer than this server.
        """
        known = self._context.unknown_keys
        new = sorted(key for key in keys if key not in known)
        if not new or len(known) >= _MOST_KEYS:
            return
        known.update(new)
        what = "a message from the application has unknown keys: %s; known are %s%s"
        shown = ", ".join(repr(key)[:60] for key in new)
        porting = (
            " ('type' is of Channels 4: see docs/how-to/begin/porting-from-channels-4.md)" if "type" in new else ""
        )
        self._log(logging.WARNING, "unknown_keys", what, shown, _KNOWN, porting)

    def unaccepted(self, now: float) -> None:
        """Log that the connect's consumer has returned without an accept; at most once a minute.

        Args:
            now: the event loop's time.
        """
        if now < self._context.tell_unaccepted:
            return
        self._context.tell_unaccepted = now + _UNACCEPTED_EVERY
        what = (
            "not accepted yet: its consumer has returned and has sent neither {'accept': True} nor {'close': True} to "
            "message.reply_channel; it may wait up to %g s"
        )
        self._log(logging.INFO, "unaccepted", what, self._context.config.accept_timeout)

    def too_slow(self, waiting: int) -> None:
        """Log that the client reads too slowly."""
        what = "closed, the client is too slow: %d bytes wait for it"
        self._note(logging.WARNING, "websocket.slow_clients", "slow_client", what, waiting)

    def too_fast(self) -> None:
        """Log once that the client sends more than it may, and is not read for a while."""
        if self._is_speed_logged:
            self._context.stats.count("websocket.throttled")
            return
        self._is_speed_logged = True
        config = self._context.config
        what = "read more slowly, the client sends more than %d frames or %d bytes a second (0: no limit)"
        limits = config.max_message_rate, config.max_byte_rate
        self._note(logging.WARNING, "websocket.throttled", "throttled", what, *limits)

    def ping_timeout(self) -> None:
        """Log that the client answers no ping."""
        timeout = self._context.config.ping_timeout
        what = "dropped, no answer to a ping within %g s"
        self._note(logging.INFO, "websocket.ping_timeouts", "ping_timeout", what, timeout)

    def idle(self) -> None:
        """Log that no message went either way for too long."""
        timeout = self._context.config.idle_timeout
        self._note(logging.INFO, "websocket.idle", "idle", "closed, no message either way for %g s", timeout)

    def _broken(self, counter: str, action: str, error: Exception) -> None:
        self._note(logging.INFO, counter, action, "closed, the client broke the protocol: %s", error)

    def _note(self, level: int, counter: str, action: str, what: str, *values: object) -> None:
        self._context.stats.count(counter)
        self._log(level, action, what, *values)

    def _log(self, level: int, action: str, what: str, *values: object) -> None:
        logger.log(level, f"%s: {what}", self.target or "?", *values, extra=extra(action, self.id))

    def _access(self, what: str) -> None:
        if self._context.config.access_log:
            access.info('%s "WebSocket %s" %s', shown_client(self.client), self.target, what)
