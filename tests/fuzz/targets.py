"""Rules that hold for any bytes: each target takes some, and raises if a rule is broken.

The fuzzer calls them with what it makes up, tests/unit/test_fuzz_targets.py with what Hypothesis does, and with every
find of before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core import names
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.uvicorn_state_internals import ServerState
from channelsq.interface.link.replies import Delivery, Replies
from channelsq.interface.process.server import InterfaceServer
from channelsq.interface.websocket.packing import FramePacker
from channelsq.layers import InMemoryChannelLayer
from channelsq.layers.wire import codec
from channelsq.layers.wire.stream_commands import open_replies
from tests.support.fakes.frame_readers import RecordingClient, SlowRecordingClient
from tests.support.fakes.loops import FakeLoop
from tests.support.fakes.reply_clients import FakeRequest, FakeSocket
from tests.support.fakes.transports import RecordingTransport

LIMIT = 1024 * 1024


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut ``data``; its first byte says how."""
    if not data:
        return
    cut, data = data[0], data[1:]
    size = cut % 64 or len(data) or 1
    for start in range(0, len(data), size):
        yield data[start : start + size]


# -- frames ---------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """Whole frames, read past the parser, give what the parser gives."""
    deflate = bool(data[:1] and data[0] & 0x80)
    quick, slow = RecordingClient(deflate), SlowRecordingClient(deflate)
    for piece in pieces(data):
        quick.incoming.feed(piece)
        slow.incoming.feed(piece)
    assert quick.told == slow.told, (quick.told, slow.told)
    if not quick.over:  # the parser looks at all of a piece before the text of its first message is read
        assert quick.closed_with == slow.closed_with, (quick.closed_with, slow.closed_with)


# -- handshakes and requests ----------------------------------------------------------------


class _Complaints(logging.Handler):
    """A handler that refuses the log lines that a client must not cause: errors, and tracebacks of any level."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.records.append(f"{record.getMessage()} {record.exc_info}")


class Server:
    """An interface server without sockets; its application answers, or does not."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.layer = InMemoryChannelLayer()
        config = InterfaceConfig(max_header_size=4096)
        self.server = InterfaceServer(
            config, ChannelLayerWrapper(self.layer, "default", []), on_listening=lambda _: None, install_signals=False
        )
        self.server.config.load()
        self.complaints = _Complaints()
        logging.getLogger("channelsq").addHandler(self.complaints)
        logging.getLogger("asyncio").addHandler(self.complaints)
        #: What the last client brought about.
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.loop.run_until_complete(self.server.context.start())

    def close(self) -> None:
        """Stop what was started."""
        logging.getLogger("channelsq").removeHandler(self.complaints)
        logging.getLogger("asyncio").removeHandler(self.complaints)
        self.loop.run_until_complete(self.server.context.stop())
        self.loop.close()

    def connection(self, parts: Iterator[bytes], *, answers: bool) -> bytes:
        """One client's connection, from its bytes to its end; gives what was written."""
        return self.loop.run_until_complete(self._connection(parts, answers))

    async def _connection(self, parts: Iterator[bytes], answers: bool) -> bytes:
        self.messages = {name: [] for name in (names.HTTP_REQUEST, names.WEBSOCKET_CONNECT)}
        transport = RecordingTransport()
        make = cast("Callable[..., asyncio.Protocol]", self.server.config.http_protocol_class)
        transport.protocol = make(config=self.server.config, server_state=ServerState(), app_state={}, _loop=self.loop)
        transport.protocol.connection_made(transport)
        for part in parts:
            if transport.closed:
                break
            transport.protocol.data_received(part)
            await self._work(answers)
        for _ in range(20):  # each answer lets the next request begin
            await self._work(answers)
        transport.closed = True
        transport.protocol.connection_lost(None)
        for _ in range(5):
            await asyncio.sleep(0)
        hub = self.server.context
        assert hub.connections == 0, "a connection is still counted"
        assert not hub.single_responses, "a request is still waited for"
        hub.sockets.clear()  # their disconnects wait for an application
        await self._work(False)
        self.layer.flush()
        return transport.written

    async def _work(self, answers: bool) -> None:
        """Be the application for a turn."""
        await asyncio.sleep(0)
        for name, found in self.messages.items():
            while (message := self.layer.receive([name])[1]) is not None:
                found.append(message)
                if answers and name == names.HTTP_REQUEST:
                    self.layer.send(message["reply_channel"], {"status": 200, "headers": [], "content": b"ok"})
                elif answers:
                    self.layer.send(message["reply_channel"], {"accept": True})
        await asyncio.sleep(0)


_server: Server | None = None


def shared_server() -> Server:
    """The server of this process."""
    global _server
    if _server is None:
        _server = Server()
    return _server


def handshake(data: bytes) -> None:
    """Any bytes are requests, handshakes, or answered with a status; nothing raises, and nothing is left."""
    server = shared_server()
    server.complaints.records.clear()
    written = server.connection(pieces(data), answers=bool(data[:1] and data[0] & 0x80))
    assert not server.complaints.records, server.complaints.records
    _read_answers(written)
    for message in server.messages[names.HTTP_REQUEST] + server.messages[names.WEBSOCKET_CONNECT]:
        hosts = [value for name, value in message["headers"] if name == b"host"]
        assert len(hosts) <= 1, hosts
        for name, value in message["headers"]:
            assert not {0, 10, 13} & set(name + value), (name, value)
    for message in server.messages[names.WEBSOCKET_CONNECT]:
        assert message["path"].startswith("/"), message["path"]
        assert message["path"].isprintable() or all(ord(each) > 31 for each in message["path"]), message["path"]


def _read_answers(written: bytes) -> None:
    """Answers stand one behind the other, whole, and the last may be a handshake's."""
    while written:
        head, end, written = written.partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        assert end, head
        assert status.startswith(b"HTTP/1.1 "), status
        if status.startswith(b"HTTP/1.1 101 "):
            return
        for header in headers:
            name, _, value = header.partition(b": ")
            if name.lower() == b"content-length":
                assert len(written) >= int(value), written
                written = written[int(value) :]


# -- messages -------------------------------------------------------------------------------

_packer = FramePacker("websocket.send.p!c", "/path/")


def messages(data: bytes) -> None:
    """Check that an unpacked message packs to one that unpacks to the same; others raise ValueError."""
    try:
        message = codec.unpack(data)
    except ValueError:
        pass
    else:
        with contextlib.suppress(TypeError):  # it holds what may not be sent, such as a timestamp
            again = codec.unpack(codec.pack(message, LIMIT))
            assert repr(again) == repr(message), (again, message)
    order = int.from_bytes(data[:3], "big")
    for payload in (data, data.decode("utf-8", "replace")):
        key = "text" if isinstance(payload, str) else "bytes"
        content = {"reply_channel": "websocket.send.p!c", "path": "/path/", "order": order, key: payload}
        assert _packer.pack(payload, order, LIMIT) == codec.pack(content, LIMIT)


# -- envelopes ------------------------------------------------------------------------------


#: What the fuzzer can address; short, so that it finds them.
SOCKET, REQUEST = "s", "h"


def envelopes(data: bytes) -> None:
    """Check that each client gets its own entries of a reply queue, and nothing raises."""
    stats = Counters()
    replies = Replies(cast(asyncio.AbstractEventLoop, FakeLoop()), stats, lambda channel, delivery: None)
    replies.register(SOCKET, FakeSocket(SOCKET))
    replies.register(REQUEST, FakeRequest())
    told: list[Any] = []

    class Witness:
        def on_reply(self, delivery: Delivery) -> None:
            told.append(delivery.message)

        def on_done(self, order: int) -> None:
            """Nothing is asked of it."""

    replies.register("witness", Witness())
    bad: list[str] = []
    good = codec.dumps([[["witness"], codec.dumps({"text": "still here"}), None]])
    found = [[b"1-0", [b"m", data]], [b"2-0", [b"m", codec.dumps([None, None, data, None])]]]
    replies.hand_out(open_replies(found, 0, bad.append), bad.append)
    replies.hand_out(open_replies([[b"3-0", [b"m", codec.dumps([None, None, good, None])]]], 0, bad.append), bad.append)
    assert told[-1:] == [{"text": "still here"}], bad
    assert stats["replies.errors"] == 0, "a client failed"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "envelopes": envelopes,
    "frames": frames,
    "handshake": handshake,
    "messages": messages,
}
