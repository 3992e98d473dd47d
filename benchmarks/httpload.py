"""HTTP load: kept connections, one request at a time in each."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, cast

from benchmarks.frames import WrongAnswer
from benchmarks.windows import Window


class Connection(asyncio.Protocol):
    """A connection that requests the page again after each answer, and compares the answers."""

    def __init__(self, load: HttpLoad) -> None:
        self.load = load
        self.buffer = b""
        self.begun = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        self.begun = time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        head, end, body = data.partition(b"\r\n\r\n")
        if not end or len(body) < len(self.load.body):
            self.buffer = data
            return
        self.buffer = b""
        if body != self.load.body or not head.startswith(b"HTTP/1.1 200 ") or not self.load.length(head):
            self.load.fail(WrongAnswer(f"a page came that is not the right one: {data[:500]!r}"))
            return
        self.load.answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.load.closing:
            self.load.fail(WrongAnswer(f"a kept connection was lost: {error or 'closed by the server'}"))


class HttpLoad:
    """The state that the connections share."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
        self.body = body
        self.length = re.compile(rb"(?i)\r\ncontent-length: *%d(?:\r\n|$)" % len(body)).search
        self.latencies: list[float] = []
        self.asking = True
        self.closing = False
        self.waiting = 0
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()

    def fail(self, error: Exception) -> None:
        """End the measurement; the first failure counts."""
        if not self.done.done():
            self.done.set_exception(error)

    def answered(self, connection: Connection) -> None:
        """Count the right page."""
        self.latencies.append(time.perf_counter() - connection.begun)
        if self.asking:
            connection.ask()
            return
        self.waiting -= 1
        if not self.waiting and not self.done.done():
            self.done.set_result(None)

    async def hold(self, seconds: float) -> None:
        """Wait for ``seconds``; raise as soon as a connection fails."""
        await asyncio.wait({self.done}, timeout=seconds)
        if self.done.done():
            self.done.result()


async def requests(
    port: int, path: str, body: bytes, connections: int, warm: float, seconds: float, pids: list[int]
) -> dict[str, Any]:
    """Measure for ``seconds`` after ``warm``; return the result of :meth:`CapacityWindow.end`.

    Raises:
        WrongAnswer: an answer was wrong, or missing for 30 s.
    """
    load = HttpLoad(port, path, body)
    load.waiting = connections
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(load), "127.0.0.1", port) for _ in range(connections)]
    try:
        await load.hold(warm)
        load.latencies = []
        window = Window(pids)
        await load.hold(seconds)
        measured = window.end(load.latencies)
        load.asking = False
        await load.hold(30)
        if not load.done.done():
            raise WrongAnswer(f"{load.waiting} requests had no answer within 30 s")
    finally:
        load.closing = True
        for transport, _ in opened:
            transport.close()
    return measured
