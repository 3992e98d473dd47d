"""An interface server in this process, on real sockets, with an application made of plain functions."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ChannelLayerError
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.process.server import InterfaceServer
from channelsq.layers import InMemoryChannelLayer
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from tests.support.waiting import wait_until

CHANNELS = ("http.request", "http.disconnect", "websocket.connect", "websocket.receive", "websocket.disconnect")


class Call:
    """One message in the hands of the application."""

    def __init__(self, layer: ChannelLayerWrapper, channel: str, message: dict[str, Any]) -> None:
        self.layer = layer
        self.channel = channel
        self.message = message
        self.pending: list[dict[str, Any]] = []

    def __getitem__(self, key: str) -> Any:
        return self.message[key]

    def reply(self, **message: Any) -> None:
        """Send to the client when the handler returns."""
        self.pending.append(message)

    def now(self, **message: Any) -> None:
        """Send to the client at once."""
        self.layer.channel_layer.send(self.message["reply_channel"], message)


Handler = Callable[[Call], None]


def accept(call: Call) -> None:
    """Accept a WebSocket."""
    call.reply(accept=True)


def echo(call: Call) -> None:
    """Send a frame back."""
    key = "text" if "text" in call.message else "bytes"
    call.reply(**{key: call[key]})


def ignore(call: Call) -> None:
    """Do nothing."""


class FakeApplication:
    """Threads that take messages off a layer, as workers do, and report each of a socket's done.

    Args:
        layer: the layer.
        handlers: what handles a channel's messages; those of other channels are only remembered.
        threads: how many handlers run at once.
    """

    def __init__(self, layer: ChannelLayerWrapper, handlers: Mapping[str, Handler], threads: int = 4) -> None:
        self.layer = layer
        self.handlers = dict(handlers)
        self.calls: list[Call] = []
        self.errors: list[BaseException] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, when the running handlers have returned."""
        self._stopping.set()
        self.layer.close()  # wakes those that wait; each may open what it needs once more
        for thread in self._threads:
            thread.join(10)
        self.layer.close()

    def messages(self, channel: str) -> list[dict[str, Any]]:
        """Return the messages on ``channel`` so far."""
        return [call.message for call in list(self.calls) if call.channel == channel]

    def wait_for(self, channel: str, count: int = 1, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Wait until ``count`` messages have come on ``channel``."""
        wait_until(lambda: len(self.messages(channel)) >= count, f"{count} messages on {channel}", timeout)
        return self.messages(channel)

    def _run(self) -> None:
        while not self._stopping.is_set():
            channel, message = self.layer.receive(CHANNELS, block=True)
            if channel is None or message is None:
                continue
            call = Call(self.layer, channel, message)
            self.calls.append(call)
            try:
                self.handlers.get(channel, ignore)(call)
                for reply in call.pending:
                    self.layer.send(message["reply_channel"], reply)
            except ChannelLayerError as error:
                self.errors.append(error)
            finally:
                self._report(message)

    def _report(self, message: dict[str, Any]) -> None:
        """Report a socket's message as done; no socket waits for it when the layer is closed."""
        try:
            if "order" in message:
                self.layer.send(message["reply_channel"], {"done": message["order"]})
        except ChannelLayerError:
            if not self._stopping.is_set():
                raise


class Site:
    """A running interface server and its application."""

    def __init__(self, server: InterfaceServer, application: FakeApplication, layer: ChannelLayerWrapper) -> None:
        self.server = server
        self.application = application
        self.layer = layer
        self.url = server.url
        self.ws_url = server.url.replace("http", "ws", 1)
        self.unix_socket = server.url.removeprefix("unix:") if server.url.startswith("unix:") else None
        self.port = 0 if self.unix_socket else int(server.url.rpartition(":")[2])

    def count(self, name: str) -> int:
        """A counter of the server."""
        return self.server.stats[name]

    def wait_for_count(self, name: str, value: int = 1, timeout: float = 10.0) -> None:
        """Wait until a counter of the server has reached ``value``."""
        wait_until(lambda: self.count(name) >= value, f"{name} to be {value}", timeout)

    @contextlib.contextmanager
    def raw(self) -> Iterator[RawClient]:
        """A plain connection."""
        if self.unix_socket is not None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(self.unix_socket)
                yield RawClient(connection)
            return
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            yield RawClient(connection)


class RawClient:
    """Bytes in, bytes out."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.socket.sendall(data)

    def read_until(self, end: bytes) -> bytes:
        """Return all bytes up to and with ``end``; raise AssertionError if the connection ends before."""
        while end not in self._buffer:
            data = self.socket.recv(65536)
            assert data, f"the connection ended after {self._buffer!r}"
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        while len(self._buffer) < size:
            data = self.socket.recv(65536)
            assert data, f"the connection ended after {self._buffer!r}"
            self._buffer += data
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def read_to_end(self) -> bytes:
        """Return all bytes until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65536):
                self._buffer += data
        found, self._buffer = self._buffer, b""
        return found

    def upgrade(self, path: str = "/", *headers: str) -> bytes:
        """Send a WebSocket handshake; gives the head of its answer."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *headers,
        ]
        self.send("\r\n".join([*lines, "", ""]).encode())
        return self.read_until(b"\r\n\r\n")

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of an unfragmented frame."""
        first, second = self.read(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(self.read(2), "big")
        elif length == 127:
            length = int.from_bytes(self.read(8), "big")
        return first & 0x0F, self.read(length)

    def read_close(self) -> int:
        """The code of the close frame that comes next but for pings."""
        opcode, payload = self.read_frame()
        while opcode == 0x9:
            opcode, payload = self.read_frame()
        assert opcode == 0x8, (opcode, payload)
        return int.from_bytes(payload[:2], "big")


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """A WebSocket frame as a client sends it; the mask is zero, which changes nothing."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head = bytes([first, bit | len(payload)])
    elif len(payload) < 65536:
        head = bytes([first, bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + len(payload).to_bytes(8, "big")
    return head + (b"\0\0\0\0" if mask else b"") + payload


@contextlib.contextmanager
def running(
    handlers: Mapping[str, Handler],
    config: InterfaceConfig | None = None,
    layer_config: Mapping[str, Any] | None = None,
    threads: int = 4,
    make_layer: Callable[..., BaseChannelLayer] = InMemoryChannelLayer,
) -> Iterator[Site]:
    """Run an interface server with an application; both are stopped at the end.

    Args:
        make_layer: makes the layer, given ``layer_config``.
    """
    layer = ChannelLayerWrapper(make_layer(**(layer_config or {})), "default", [])
    application = FakeApplication(layer, handlers, threads)
    listening = threading.Event()
    server = InterfaceServer(
        replace(config or InterfaceConfig(), port=0),
        layer,
        on_listening=lambda _: listening.set(),
        install_signals=False,
    )
    thread = threading.Thread(target=server.run, daemon=True)
    application.start()
    thread.start()
    assert listening.wait(10), "the interface server does not listen"
    try:
        yield Site(server, application, layer)
    finally:
        server.stop()
        thread.join(30)
        application.stop()
    assert not thread.is_alive(), "the interface server does not end"
    assert not application.errors
