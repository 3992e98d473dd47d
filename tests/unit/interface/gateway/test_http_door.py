"""A gateway's HTTP server, with a real client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.sockets import bind
from channelsq.interface.gateway.gateway_config import GatewayConfig
from channelsq.interface.gateway.http_door import HttpDoor, HttpRequest, HttpResponse
from channelsq.interface.gateway.outcomes import Rejected, TryLater

Client = Callable[[httpx.AsyncClient, Counters], Awaitable[None]]


async def echo(request: HttpRequest) -> HttpResponse:
    """Answer by the path, else with what came."""
    match request.path:
        case "/later":
            raise TryLater("the channel is full", 2.4)
        case "/soon":
            raise TryLater("the channel is full")
        case "/no":
            raise Rejected("no such field")
        case "/fault":
            raise RuntimeError("a secret")
    told = f"{request.method} {request.path} {request.query} {request.headers.get('x-two')}\n".encode()
    return HttpResponse(201, told + request.body, headers={"X-Own": "1"})


def serve(client: Client, handler: Callable[[HttpRequest], Awaitable[HttpResponse]] = echo, **config: Any) -> None:
    """Run a server, and a client in the same loop."""

    async def run() -> None:
        stats = Counters()
        sockets = bind("127.0.0.1", 0)
        door = HttpDoor(GatewayConfig(**config), stats, handler)
        await door.listen(sockets)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as made:
                await client(made, stats)
        finally:
            await door.stop()

    asyncio.run(run())


def test_a_request_is_complete_and_its_answer_too() -> None:
    async def client(http: httpx.AsyncClient, stats: Counters) -> None:
        headers = [("x-two", "a"), ("x-two", "b")]
        response = await http.post("/a%20b?c=d", content=b"body", headers=headers)
        assert response.status_code == 201
        assert response.content == b"POST /a%20b c=d a, b\nbody"
        assert response.headers["x-own"] == "1"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        head = await http.head("/x")
        assert head.content == b""
        assert int(head.headers["content-length"]) > 0
        assert not stats.refused

    serve(client)


@pytest.mark.parametrize(
    ("path", "status", "text", "after"),
    [
        ("/later", 503, "the channel is full\n", "2"),
        ("/soon", 503, "the channel is full\n", "5"),
        ("/no", 400, "no such field\n", None),
        ("/fault", 500, "the server failed\n", None),
    ],
)
def test_what_a_handler_raises_is_a_status(path: str, status: int, text: str, after: str | None) -> None:
    async def client(http: httpx.AsyncClient, stats: Counters) -> None:
        response = await http.post(path)
        assert (response.status_code, response.text) == (status, text)
        assert response.headers.get("retry-after") == after
        assert dict(stats.refused) == {("http", status, "answer"): 1}

    serve(client)


def test_bodies_are_bounded_with_and_without_a_length() -> None:
    async def client(http: httpx.AsyncClient, stats: Counters) -> None:
        async def parts() -> Any:
            for _ in range(3):
                yield b"x" * 50

        for body in (b"x" * 101, parts()):
            response = await http.post("/", content=body)
            assert response.status_code == 413
            assert response.headers["connection"] == "close"
        assert (await http.post("/", content=b"x" * 100)).status_code == 201

    serve(client, max_body_size=100)


def test_a_body_that_does_not_come_gets_408_and_a_client_that_leaves_nothing() -> None:
    begun = []

    async def handler(request: HttpRequest) -> HttpResponse:
        begun.append(request)
        return HttpResponse()

    async def client(http: httpx.AsyncClient, stats: Counters) -> None:
        port = http.base_url.port
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await writer.drain()
        writer.close()
        assert (await http.get("/")).status_code == 200
        assert len(begun) == 1

    serve(client, handler, request_timeout=0.3)
