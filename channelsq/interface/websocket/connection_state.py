"""One WebSocket as the application sees it: its states, and the order of its messages.  No I/O.

::

    CONNECTING ──accept, or text or bytes──▶ OPEN ──close──▶ CLOSING ──the socket ends──▶ CLOSED
        └──────────────close: refused─────────────────────────▲

Two streams meet here.  ``websocket.connect``, ``receive`` and ``disconnect`` go *to the application*: one at a time,
each when the previous message is reported done (``{"done": order}``), the disconnect last and exactly once.  Replies
come *from the application* and become actions for the owner of the socket.

A message to a socket that is not accepted yet is held until the connect is answered, and then implies the accept unless
the answer says otherwise.  A refusal drops held messages: a group's message may have come in between, and must neither
open nor reach a socket that the application refuses.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from channelsq.core import names
from channelsq.interface.websocket.application_messages import BadReply, close_code, close_reason, payload_of


class State(enum.Enum):
    """The state of a connection."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


#: For code that runs with every message, as a look-up in the enum takes longer.
IS_OPEN = State.OPEN


class IllegalTransition(Exception):
    """An event that is impossible in the connection's state."""

    def __init__(self, event: str, state: State) -> None:
        self.event = event
        self.state = state
        super().__init__(f"{event} is not possible while the connection is {state.value}")


class Reply(Protocol):
    """A message from the application."""

    message: dict[str, Any]
    #: The group that it was sent to; None if it was sent to this socket itself.
    group: str | None

    @property
    def size(self) -> int:
        """The approximate number of bytes that it takes."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Complete the handshake."""

    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the handshake with an HTTP error."""

    reason: str
    status: int = 403


@dataclass(frozen=True, slots=True)
class Write:
    """Send the reply's text or bytes as a frame."""

    reply: Any


@dataclass(frozen=True, slots=True)
class Close:
    """Begin the closing handshake."""

    code: int
    reason: str = ""


Action = Accept | Refuse | Write | Close


class HandOut(NamedTuple):
    """The next message of a socket for the application."""

    channel: str
    content: dict[str, Any]
    order: int


#: The content of a message: its dict without the common keys, or the payload that the client sent.
Content = dict[str, Any] | str | bytes


class Outlet(Protocol):
    """The destination of text and bytes for an open socket."""

    #: Whether it accepts them.
    is_open: bool


#: A message that waits for those before it: channel, content, order, and size.
_Waiting = tuple[str, Content, int, int]


@dataclass(slots=True)
class Connection:
    """The state of one WebSocket.

    Args:
        reply_channel: the client's own channel.
        path: the request's path.
        root_path: the path under which the site is mounted, or "".
        max_messages, max_bytes: the limits of :attr:`has_room`.
        max_held: bytes that may be held before the accept; with more the socket is refused.
        offered: the subprotocols that the client offers.
    """

    reply_channel: str
    path: str
    root_path: str = ""
    max_messages: int = 16
    max_bytes: int = 1024 * 1024
    max_held: int = 1024 * 1024
    offered: tuple[str, ...] = ()
    state: State = State.CONNECTING
    #: The order of the message that a worker handles now.
    in_flight: int | None = None
    _next_order: int = 0
    # Short, and mostly empty: a deque would take ten times as much.
    waiting: list[_Waiting] = field(default_factory=list)
    _waiting_bytes: int = 0
    _held: list[Reply] = field(default_factory=list)
    _held_bytes: int = 0
    #: Whether the application has finished the connect.
    connect_done: bool = False
    #: Whether the application has answered the connect, and thus has it, even if its publication is reported as failed.
    answered: bool = False
    #: The destination of text and bytes while the connection is open.
    outlet: Outlet | None = None

    # -- to the application -----------------------------------------------------------------

    def _leave(self, state: State) -> None:
        """Enter a state in which the socket takes no more messages from the application."""
        self.state = state
        if self.outlet is not None:
            self.outlet.is_open = False

    def connect(self, content: dict[str, Any]) -> None:
        """Queue the connect of a client; ``content`` lacks the common keys."""
        if self._next_order or self.state is not State.CONNECTING:
            raise IllegalTransition("connect", self.state)
        self._queue(names.WEBSOCKET_CONNECT, content, 0)

    def receive(self, payload: str | bytes) -> None:
        """Queue a message of the client."""
        if self.state is not State.OPEN:
            raise IllegalTransition("receive", self.state)
        self._queue(names.WEBSOCKET_RECEIVE, payload, len(payload))

    def pass_by(self) -> int | None:
        """Give a client's message its turn at once: return its order, in flight from now on.

        Return None, and change nothing, if it must wait: the caller then passes it to :meth:`receive`.
        """
        if self.in_flight is not None or self.waiting or self.state is not IS_OPEN:
            return None
        order = self.in_flight = self._next_order
        self._next_order = order + 1
        return order

    def end(self, code: int, reason: str = "") -> None:
        """Record that the socket is gone, with its ``code`` and ``reason``, and queue the disconnect."""
        if self.state is State.CLOSED:
            raise IllegalTransition("end", self.state)
        self._leave(State.CLOSED)
        self._held.clear()
        if self._next_order:
            self._queue(names.WEBSOCKET_DISCONNECT, {"code": code, "reason": reason}, 0)

    def _queue(self, channel: str, content: Content, size: int) -> None:
        order = self._next_order
        self._next_order += 1
        self.waiting.append((channel, content, order, size))
        self._waiting_bytes += size

    @property
    def messages(self) -> int:
        """The number of messages for the application so far."""
        return self._next_order

    @property
    def has_room(self) -> bool:
        """True if the server should read more from the client."""
        return len(self.waiting) < self.max_messages and self._waiting_bytes < self.max_bytes

    @property
    def finished(self) -> bool:
        """True if the socket is gone and the application has finished all of its messages."""
        return self.state is State.CLOSED and self.in_flight is None and not self.waiting

    @property
    def busy(self) -> bool:
        """True if the application has, or will get, a message of this socket."""
        return self.in_flight is not None or bool(self.waiting)

    def take(self) -> HandOut | None:
        """Return the next message for the application, in flight from now on; None while another is in flight."""
        taken = self.take_bare()
        if taken is None:
            return None
        channel, content, order = taken
        return HandOut(channel, self.message(content, order), order)

    def take_bare(self) -> tuple[str, Content, int] | None:
        """Return the next message like :meth:`take`, but without the common keys; :meth:`message` adds them."""
        if self.in_flight is not None or not self.waiting:
            return None
        channel, content, order, size = self.waiting.pop(0)
        self._waiting_bytes -= size
        self.in_flight = order
        return channel, content, order

    def message(self, content: Content, order: int) -> dict[str, Any]:
        """Return a message with the common keys."""
        if type(content) is not dict:
            content = {"text" if type(content) is str else "bytes": content}
        mounted = {"root_path": self.root_path} if self.root_path else {}
        return {"reply_channel": self.reply_channel, "path": self.path, **mounted, "order": order, **content}

    def done(self, order: int) -> list[Action]:
        """Record that the application has finished message ``order``, or that the server stops waiting for it."""
        if order != self.in_flight:
            return []
        self.in_flight = None
        if order == 0:
            self.connect_done = True
            if self.state is State.CONNECTING and self._held:
                return self._open(None)
        return []

    def _connect_failed(self) -> list[Action]:
        """Refuse the socket if nothing else can accept it, as the consumer of its connect failed."""
        if self.in_flight == 0:
            self.in_flight = None
        self.connect_done = True
        if self.state is not State.CONNECTING:
            return []
        self._leave(State.CLOSING)
        self.answered = True
        self._held.clear()
        return [Refuse("the consumer of its connect failed", 500)]

    def lost(self) -> None:
        """Give up the message in flight, as it could not be published.

        If it was the connect, the application never heard of this socket: it gets no more messages of it, and cannot
        open it.
        """
        if self.in_flight == 0 and not self.answered:
            self.waiting.clear()
            self._waiting_bytes = 0
            self._next_order = 0
            self.begin_close()
        self.in_flight = None

    # -- from the application ---------------------------------------------------------------

    def reply(self, reply: Reply) -> list[Action]:
        """Return the actions for a message from the application; none if the socket is closing or closed.

        Raises:
            BadReply: a value is invalid; then no part of the message has an effect.
        """
        message = reply.message
        done = message.get("done")
        if done is not None:
            if isinstance(done, bool) or not isinstance(done, int):
                raise BadReply(f"'done' must be the order of a message, not {done!r}")
            if message.get("failed") is True and done == 0:
                return self._connect_failed()
            return self.done(done)
        payload, close = payload_of(message), close_code(message)
        reason = "" if close is None else close_reason(message)
        accept, subprotocol = message.get("accept"), message.get("subprotocol")
        if self.state in (State.CLOSING, State.CLOSED):
            return []
        actions: list[Action] = []
        if self.state is State.CONNECTING:
            if accept or (subprotocol is not None and close is None):
                actions += self._accept(subprotocol)
            elif close is not None and (payload is None or reply.group is not None):
                self._leave(State.CLOSING)
                self.answered = True
                self._held.clear()
                return [Refuse("the application refused it")]
            elif payload is not None and reply.group is not None and not self.connect_done:
                # A group's message must not open a socket that its consumer may still refuse.
                return self._hold(reply)
            elif payload is not None:
                actions += self._open(None)
        if self.state is State.OPEN:
            if payload is not None:
                actions.append(Write(reply))
            if close is not None:
                self._leave(State.CLOSING)
                actions.append(Close(close, reason))
        return actions

    def begin_close(self) -> None:
        """Record that the client or this server closes the socket."""
        if self.state in (State.CONNECTING, State.OPEN):
            self._leave(State.CLOSING)
            self._held.clear()

    def _accept(self, subprotocol: Any) -> list[Action]:
        if subprotocol is not None and subprotocol not in self.offered:
            self._leave(State.CLOSING)
            self.answered = True
            offered = ", ".join(map(repr, self.offered)) or "none"
            return [Refuse(f"the application chose the subprotocol {subprotocol!r}, the client offers {offered}")]
        return self._open(subprotocol)

    def _open(self, subprotocol: str | None) -> list[Action]:
        self.state = State.OPEN
        self.answered = True
        if subprotocol is None and names.SUBPROTOCOL in self.offered:
            subprotocol = names.SUBPROTOCOL
        held, self._held, self._held_bytes = self._held, [], 0
        return [Accept(subprotocol), *map(Write, held)]

    def _hold(self, reply: Reply) -> list[Action]:
        self._held.append(reply)
        self._held_bytes += reply.size
        if self._held_bytes <= self.max_held:
            return []
        self._leave(State.CLOSING)
        self._held.clear()
        return [Refuse(f"more than {self.max_held} bytes were sent to it before it was accepted")]
