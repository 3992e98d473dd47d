"""Clients that remember what came of a WebSocket's bytes, and frames to give them."""

from __future__ import annotations

import zlib
from typing import Any

from websockets.http11 import Request
from websockets.protocol import OPEN

from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.incoming import Incoming
from channelsq.interface.websocket.websockets_wire_internals import Wire
from tests.support.interfaces import frame

MAX_SIZE = 3000

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)


class RecordingClient:
    """A client that remembers what it was told."""

    def __init__(self, deflate: bool = False) -> None:
        self.wire = Wire(extensions=handshake.EXTENSIONS, max_size=MAX_SIZE)
        self.incoming = Incoming(self.wire, self, MAX_SIZE)
        self.told: list[Any] = []
        # After bad text a client is told no more, as the connection's state has it.
        self.over = False
        self.parsed = 0
        self.room = 1_000_000
        offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if deflate else b""
        self.incoming.feed(REQUEST % offer)
        assert self.wire.state is OPEN
        self.parsed = 0

    def tell(self, what: Any) -> None:
        if not self.over:
            self.told.append(what)

    def may_take(self) -> bool:
        return self.room > 0

    def on_request(self, request: Request) -> None:
        self.wire.send_response(self.wire.accept(request))

    def on_message(self, payload: str | bytes) -> None:
        self.tell(payload)
        self.room -= 1

    def on_bad_text(self, error: UnicodeDecodeError) -> None:
        self.tell("bad text")
        self.over = True
        self.wire.fail(1007, "")

    def on_ping(self) -> None:
        pass  # what it says is the parser's to answer

    def on_pong(self, data: bytes) -> None:
        self.tell(("pong", data))

    def on_close(self) -> None:
        self.tell("close")

    def on_broken(self, error: Exception) -> None:
        self.tell(type(error).__name__)

    def after_parsing(self) -> None:
        self.parsed += 1
        self.wire.data_to_send()

    @property
    def closed_with(self) -> int | None:
        return None if self.wire.close_sent is None else int(self.wire.close_sent.code)


class SlowRecordingClient(RecordingClient):
    """The same through the parser alone."""

    def __init__(self, deflate: bool = False) -> None:
        super().__init__(deflate)

        class Parser(Incoming):
            def _read_whole_frames(self, data: bytes) -> bytes:
                return data

        self.incoming = Parser(self.wire, self, MAX_SIZE)


def masked(opcode: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04", **options: Any) -> bytes:
    plain = frame(opcode, payload, **options)
    head = len(plain) - len(payload) - 4
    return plain[:head] + mask + bytes(each ^ mask[n % 4] for n, each in enumerate(payload))


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
