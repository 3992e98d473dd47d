"""The opening handshake of one client, from its request to the answer.

::

    no request ──request──▶ admitted ──accept──▶ 101
        └──────────▶ refused ◀──┘

The server admits or refuses a request; the application accepts or refuses an admitted one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from websockets.exceptions import InvalidMessage
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING
from websockets.typing import Subprotocol

from channelsq.interface.basis.log_fields import shown_target
from channelsq.interface.basis.request_validation import has_controls
from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.admission import Refusal, admit, connection_of
from channelsq.interface.websocket.connection_state import Connection, IllegalTransition, State
from channelsq.interface.websocket.reading import Reading
from channelsq.interface.websocket.socket_parts import SocketParts
from channelsq.interface.websocket.websockets_wire_internals import is_about_handshake


class Admitted(NamedTuple):
    """An admitted WebSocket, of which the application must be told.

    Args:
        connection: its state.
        content: the content of its ``websocket.connect``.
        place: see :class:`channelsq.interface.presence.clients.Clients`.
    """

    connection: Connection
    content: dict[str, Any]
    place: str


class Opening:
    """The handshake of one client; it is the parser's client until the WebSocket is admitted.

    Args:
        parts: the parts of the WebSocket.
        reading: the flow of its incoming bytes.
        admitted: called when the WebSocket is admitted.
    """

    __slots__ = ("_admitted", "_parts", "_reading", "_response")

    def __init__(self, parts: SocketParts, reading: Reading, admitted: Callable[[Admitted], None]) -> None:
        self._parts = parts
        self._reading = reading
        self._admitted = admitted
        #: The answer, until it is sent.
        self._response: Response | None = None

    @property
    def is_pending(self) -> bool:
        """True until the handshake is answered."""
        wire = self._parts.wire
        return wire.state is CONNECTING and not wire.eof_sent

    # -- from the parser; see channelsq.interface.websocket.incoming.Client ------------------

    def may_take(self) -> bool:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        return self._reading.may_take()

    def on_request(self, request: Request) -> None:
        """Admit the WebSocket that the client asks for, or refuse it."""
        parts = self._parts
        path, query = handshake.split_target(request.path)
        log, config = parts.log, parts.context.config
        log.target = shown_target(path, query)
        if has_controls(path):
            self.refuse(400, "bad_handshake", "a control character in the path")
            return
        self._response = response = handshake.answer_to(parts.wire, request)
        if response.status_code != 101:
            log.refused(response.status_code, "bad_handshake", f"bad handshake: {parts.wire.handshake_exc}")
            parts.wire.send_response(response)
            return
        content = handshake.connect_content(
            request, parts.transport, log.client, root_path=config.root_path, proxy_headers=config.proxy_headers
        )
        place = admit(parts.context, request, content["headers"], log.client)
        if isinstance(place, Refusal):
            self.refuse(place.status, place.cause, place.reason, retry_after=place.retry_after)
            return
        log.client = content["client"]
        self._admitted(Admitted(connection_of(parts.context, request, path), content, place))

    def on_broken(self, error: Exception) -> None:
        """Answer a request that is not a handshake, if the parser could not."""
        parts = self._parts
        if self._response is not None or not is_about_handshake(parts.wire, error):
            return
        self._response = handshake.plain_response(400, ": not a WebSocket handshake")
        if isinstance(error, InvalidMessage):
            parts.transport.write(self._response.serialize())
        parts.log.refused(400, "bad_handshake", f"bad handshake: {error.__cause__ or error}")

    def after_parsing(self) -> None:
        """See :class:`channelsq.interface.websocket.incoming.Client`."""
        self._parts.outgoing.write_wire()

    # A client that was refused may go on sending.

    def on_message(self, payload: str | bytes) -> None:
        """Ignore it."""

    def on_bad_text(self, error: UnicodeDecodeError) -> None:
        """Ignore it."""

    def on_ping(self) -> None:
        """Ignore it."""

    def on_pong(self, data: bytes) -> None:
        """Ignore it."""

    def on_close(self) -> None:
        """Ignore it."""

    # -- answers ----------------------------------------------------------------------------

    def accept(self, subprotocol: str | None) -> bool:
        """Answer with 101; return False if the handshake is over meanwhile.

        Raises:
            IllegalTransition: there was no request, or it is accepted already.
        """
        wire = self._parts.wire
        if not self.is_pending:
            return False
        if self._response is None:
            raise IllegalTransition("accept without a request", State.CONNECTING)
        if subprotocol is not None:
            self._response.headers["Sec-WebSocket-Protocol"] = subprotocol
            wire.subprotocol = Subprotocol(subprotocol)
        wire.send_response(self._response)
        return True

    def refuse(self, status: int, cause: str, reason: str, *, retry_after: int | None = None) -> None:
        """Answer with an HTTP error, and end the connection; do nothing if the handshake is over.

        Args:
            status: the status of the response.
            cause: the counted cause, one of a few words.
            reason: the reason in the log.
            retry_after: seconds after which the client may try again.
        """
        if self.is_pending:
            self._parts.log.refused(status, cause, reason)
            self._parts.wire.send_response(handshake.plain_response(status, "", retry_after))
            self._parts.outgoing.write_wire()
