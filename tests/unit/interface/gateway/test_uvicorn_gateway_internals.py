"""uvicorn's protocol asks ours before it takes a connection, and tells it of the head of each request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config

from channelsq.interface.basis.uvicorn_state_internals import ServerState
from channelsq.interface.gateway.uvicorn_gateway_internals import BoundedHttpProtocol, HeadLimits
from tests.support.fakes.transports import RecordingTransport

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with nothing."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def connection(state: ServerState, refused: list[tuple[int, str]], connections: int = 9) -> Any:
    config = Config(application, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    limits = HeadLimits(connections, 100, 0.05, lambda status, reason: refused.append((status, reason)))
    made = BoundedHttpProtocol(limits, config, state, {}, asyncio.get_running_loop())
    made.connection_made(RecordingTransport())
    return made


async def _answered(protocol: Any) -> None:
    while protocol.tasks:
        await asyncio.sleep(0)


def test_requests_on_one_connection_each_have_their_limits() -> None:
    async def run() -> None:
        refused: list[tuple[int, str]] = []
        protocol = connection(ServerState(), refused)
        for _ in range(5):  # together their heads are larger than the limit
            protocol.data_received(GET)
            await _answered(protocol)
        assert protocol.transport.written.count(b"HTTP/1.1 204") == 5
        protocol.data_received(GET[:-2] + b"x: " + b"y" * 200)
        assert protocol.transport.closed
        assert b"HTTP/1.1 431" in protocol.transport.written
        protocol.data_received(GET)
        assert refused == [(431, "headers_too_large")]
        protocol.connection_lost(None)

    asyncio.run(run())


def test_a_body_is_no_part_of_the_head() -> None:
    async def run() -> None:
        protocol = connection(ServerState(), [])
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n")
        protocol.data_received(b"x" * 500)
        await _answered(protocol)
        assert protocol.transport.written.startswith(b"HTTP/1.1 204")
        protocol.connection_lost(None)

    asyncio.run(run())


def test_late_heads_and_too_many_connections() -> None:
    async def run() -> None:
        refused: list[tuple[int, str]] = []
        state = ServerState()
        first, second = connection(state, refused, 1), connection(state, refused, 1)
        assert second.transport.written.startswith(b"HTTP/1.1 503")
        while not first.transport.closed:
            await asyncio.sleep(0.01)
        assert first.transport.written.startswith(b"HTTP/1.1 408")
        assert refused == [(503, "too_many_connections"), (408, "late_request")]
        for each in (first, second):
            each.connection_lost(None)
        assert not state.connections

    asyncio.run(run())
