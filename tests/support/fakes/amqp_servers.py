"""A server that py-amqp is connected to, of which a test says each byte."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from amqp.transport import TCPTransport


class FakeAmqpServer:
    """A server that says what it is told to, and a transport of py-amqp's to it."""

    def __init__(self) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        self.transport: Any = TCPTransport(f"127.0.0.1:{server.getsockname()[1]}", connect_timeout=5)
        self.transport.connect()
        self.peer, _ = server.accept()
        server.close()
        self.peer.recv(8)  # the protocol's header
        self.connection: Any = SimpleNamespace(transport=self.transport, read_timeout=None, frame_writer=print)

    def close(self) -> None:
        self.transport.close()
        self.peer.close()
