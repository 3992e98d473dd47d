"""The conversion of a client's bytes to messages.

Most clients send a message as one small frame.  This module reads such a frame itself while the parser of
``websockets`` is between two frames.  The parser reads everything else: the handshake, fragments, control frames, large
or broken frames.
"""

from __future__ import annotations

from typing import Protocol

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN

from channelsq.interface.basis.frames import BYTES, COMPRESSED, TEXT
from channelsq.interface.basis.websockets_internals import SharedDeflate, apply_mask
from channelsq.interface.websocket.throttle import DEAR, Throttle
from channelsq.interface.websocket.websockets_wire_internals import Wire, is_between_frames, what_is_wrong

#: Bytes parsed at a time: between two pieces the limit of waiting messages is checked.
_PIECE = 4096

_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class Client(Protocol):
    """The receiver of a client's events."""

    def may_take(self) -> bool:
        """Return whether more may be parsed now."""

    def on_request(self, request: Request) -> None:
        """Handle the handshake's request."""

    def on_message(self, payload: str | bytes) -> None:
        """Handle a message."""

    def on_bad_text(self, error: UnicodeDecodeError) -> None:
        """Handle a text message that is not UTF-8."""

    def on_ping(self) -> None:
        """Handle a ping, which the parser answers."""

    def on_pong(self, data: bytes) -> None:
        """Handle a pong."""

    def on_close(self) -> None:
        """Handle a close frame: the client begins, or answers, the closing handshake."""

    def on_broken(self, error: Exception) -> None:
        """Handle a frame or request that breaks the protocol; nothing more is read."""

    def after_parsing(self) -> None:
        """Send the bytes of the parser, if it has any."""


class Incoming:
    """The incoming bytes of one client.

    Args:
        wire: the parser, which also creates the outgoing frames.
        client: the receiver of the events.
        max_size: the largest message, in bytes.
        throttle: counts the bytes and frames; None without limits.
    """

    __slots__ = (
        "_broken", "_fragments", "_max_size", "_parts", "_parts_are_text", "_past_parser", "_throttle",
        "_unclaimed", "client", "waiting", "wire",
    )  # fmt: skip

    def __init__(self, wire: Wire, client: Client, max_size: int, throttle: Throttle | None = None) -> None:
        self.wire = wire
        #: It is replaced when the handshake's request has come.
        self.client = client
        self._max_size = max_size
        self._throttle = throttle
        #: Bytes that have come and are not parsed yet.
        self.waiting = bytearray()
        # The parts of a fragmented message; not a list, which empty frames could grow without limit.
        self._parts: bytearray | None = None
        self._parts_are_text = False
        # Bytes that were parsed and belong to no complete frame yet, and bytes in all fragments so far.
        self._unclaimed = self._fragments = 0
        # Whether whole frames may be read without the parser.
        self._past_parser = False
        self._broken = False

    def feed(self, data: bytes) -> None:
        """Take new bytes, as far as the client may take them; the rest waits."""
        if self._past_parser:
            data = self._read_whole_frames(data)
            if not data:
                return
        if self.waiting or len(data) > self._piece() or not self.client.may_take():
            self.waiting += data
            self.go_on()
        else:
            self._parse(data)

    @property
    def unfinished(self) -> int:
        """Return the bytes of incomplete messages, except those that came in one read; empty frames bring none."""
        return self._fragments + self._unclaimed

    def go_on(self) -> None:
        """Parse the waiting bytes, as far as the client may take them."""
        waiting = self.waiting
        while waiting and self.client.may_take():
            size = self._piece()
            piece = bytes(waiting[:size])
            del waiting[:size]
            self._parse(piece)

    def _piece(self) -> int:
        return _PIECE if self._throttle is None else self._throttle.piece

    # -- without the parser -----------------------------------------------------------------

    def _read_whole_frames(self, data: bytes) -> bytes:
        """Take messages of one frame each from the front; return the rest for the parser."""
        size, start, frames, inflated = len(data), 0, 0, 0
        # The first message has room, as it was read; later ones may have none.
        while size - start >= 6 and (not start or self.client.may_take()):
            first, length, mask = data[start], data[start + 1] - 0x80, start + 2
            if length == 126 and size - start >= 8:
                length, mask = data[mask] << 8 | data[mask + 1], mask + 2
                if length < 126:
                    break
            elif not 0 <= length < 126:
                break
            end = mask + 4 + length
            if end > size or length > self._max_size:
                break
            kind = first & ~COMPRESSED
            if kind != TEXT and kind != BYTES:
                break
            payload = apply_mask(data[mask + 4 : end], data[mask : mask + 4])
            if kind != first:
                extensions = self.wire.extensions
                if not extensions:
                    break
                deflate = extensions[0]
                assert isinstance(deflate, SharedDeflate)
                try:
                    payload = deflate.inflate(payload, self._max_size)
                except (PayloadTooBig, ProtocolError) as error:
                    self._fail(error)
                    return b""
                inflated += max(0, len(payload) - length)
            start = end
            frames += 1
            if kind == BYTES:
                self.client.on_message(payload)
            else:
                self._deliver(payload, True)
            if start == size or not self._past_parser:
                break
        if not start:
            return data
        if self._throttle is not None:
            self._throttle.took(frames, start + inflated)
        return data[start:]

    def _fail(self, error: PayloadTooBig | ProtocolError) -> None:
        self._past_parser = False
        self._broken = True
        self.client.on_broken(error)
        self.wire.fail(1009 if isinstance(error, PayloadTooBig) else 1002, str(error))
        self.client.after_parsing()

    # -- with the parser --------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        wire = self.wire
        wire.receive_data(data)
        frames = inflated = 0
        self._unclaimed += len(data)
        for event in wire.events_received():
            if isinstance(event, Frame):
                frames += 1 if event.data and event.opcode in _DATA else DEAR
                inflated += max(0, len(event.data) - self._unclaimed)
                self._unclaimed = 0
                self._on_frame(event)
            elif isinstance(event, Request):
                self.client.on_request(event)
        error = what_is_wrong(wire)
        if error is not None and not self._broken:
            self._broken = True
            self.client.on_broken(error)
        self.client.after_parsing()
        if self._throttle is not None:
            self._throttle.took(frames, len(data) + inflated)
        self._past_parser = wire.state is OPEN and self._parts is None and not self.waiting and is_between_frames(wire)

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode in _DATA:
            data = frame.data
            if opcode is not Opcode.CONT:
                self._parts_are_text = opcode is Opcode.TEXT
            if self._parts is not None or not frame.fin:
                self._parts = self._parts or bytearray()
                self._parts += data
                self._fragments += len(data)
                if not frame.fin:
                    return
                data, self._parts = self._parts, None
            self._deliver(bytes(data), self._parts_are_text)
        elif opcode is Opcode.PONG:
            self.client.on_pong(bytes(frame.data))
        elif opcode is Opcode.PING:
            self.client.on_ping()
        elif opcode is Opcode.CLOSE:
            self.client.on_close()

    def _deliver(self, data: bytes, is_text: bool) -> None:
        if not is_text:
            self.client.on_message(data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self._past_parser = False
            self.client.on_bad_text(error)
            return
        self.client.on_message(text)
