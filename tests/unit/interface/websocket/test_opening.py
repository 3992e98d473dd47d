"""A handshake is answered once, and a client that was refused is not listened to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from uvicorn.server import ServerState

from channelsq.core import names
from channelsq.interface.websocket.connection_state import IllegalTransition
from channelsq.interface.websocket.websocket_protocol import WebSocketProtocol
from tests.fuzz.targets import Server
from tests.support.fakes.frame_readers import REQUEST, masked
from tests.support.fakes.transports import RecordingTransport


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Client:
    """One client of a server without sockets."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport = RecordingTransport()
        self.protocol = WebSocketProtocol(server.server.context, ServerState())
        server.server.context.connections += 1
        self.protocol.connection_made(self.transport)

    def say(self, data: bytes) -> bytes:
        """Send ``data`` and return what comes back."""
        before = len(self.transport.written)
        self.protocol.data_received(data)
        return self.transport.written[before:]


def within(server: Server, act: Callable[[Client], None]) -> None:
    async def main() -> None:
        client = Client(server)
        act(client)
        client.transport.closed = True
        client.protocol.connection_lost(None)

    server.loop.run_until_complete(asyncio.wait_for(main(), 10))


def test_a_handshake_is_accepted_once(server: Server) -> None:
    def act(client: Client) -> None:
        assert client.say(REQUEST % b"") == b""
        assert client.protocol.is_beginning
        opening = client.protocol._opening
        assert opening.accept("chat")
        assert not client.protocol.is_beginning
        assert not opening.accept("chat")
        opening.refuse(503, "late", "too late")
        client.protocol.abort()

    within(server, act)


def test_nothing_is_accepted_before_it_is_asked_for(server: Server) -> None:
    def act(client: Client) -> None:
        with pytest.raises(IllegalTransition, match="accept without a request is not possible while"):
            client.protocol._opening.accept(None)

    within(server, act)


def test_a_client_has_one_handshake(server: Server) -> None:
    def act(client: Client) -> None:
        client.say(REQUEST % b"")
        conversation = client.protocol._conversation
        assert conversation is not None
        request = client.protocol._parts.wire
        with pytest.raises(IllegalTransition, match=r"a second handshake is not possible while .* connecting"):
            conversation.on_request(request)  # type: ignore[arg-type]  # whatever it is

    within(server, act)


def test_a_client_that_was_refused_may_go_on_sending(server: Server) -> None:
    def act(client: Client) -> None:
        answer = client.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 4")
        assert not client.protocol.is_beginning
        assert client.say(masked(1, b"hello") + masked(9, b"") + masked(10, b"") + masked(8, b"")) == b""
        assert client.protocol._conversation is None
        assert not client.protocol.is_open

    within(server, act)
    assert server.layer.receive([names.WEBSOCKET_CONNECT]) == (None, None)
    assert server.complaints.records == []
