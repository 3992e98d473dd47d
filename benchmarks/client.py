"""The load client, a separate process: raw sockets in uvloop, the same for every measured server.

It reads a command a line (JSON) and answers with a line. It compares each message with the expected one: a wrong,
doubled or missing message ends the command with ``{"error": …}``. :mod:`benchmarks.measuring` starts it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import uvloop

from benchmarks.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    WrongAnswer,
    check_handshake,
    client_frame,
    handshake,
    server_frame,
    take_frame,
)
from benchmarks.httpload import requests
from benchmarks.windows import Window

#: Bytes of text in each message.
SIZE = 64

#: Different messages of a socket, sent in turn; with one under way at a time, none can pass for another.
RING = 16

#: Seconds after which a missing message counts as lost.
PATIENCE = 30.0


class Socket(asyncio.Protocol):
    """One WebSocket. It calls ``heard(self)`` when exactly the expected frame has arrived."""

    __slots__ = (
        "begun",
        "buffer",
        "closed",
        "expected",
        "frames",
        "heard",
        "load",
        "opened",
        "step",
        "transport",
        "write",
    )

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = bytearray()
        self.expected = b""
        self.heard: Callable[[Socket], None] = load.unexpected
        self.step = 0
        self.begun = 0.0
        self.frames: list[tuple[bytes, bytes]] = []
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport
        self.write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.load.sockets.append(self)
        self.transport = cast(asyncio.Transport, transport)
        self.write = self.transport.write
        self.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        if data == self.expected and not self.buffer:
            self.heard(self)
            return
        self.buffer += data
        try:
            self._parse()
        except WrongAnswer as error:
            self.load.fail(error)

    def _parse(self) -> None:
        if not self.opened.done():
            head, end, _ = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            check_handshake(bytes(head), self.load.deflate)
            del self.buffer[: len(head) + 4]
            self.opened.set_result(None)
        while (frame := take_frame(self.buffer, self.load.deflate)) is not None:
            opcode, payload = frame
            if opcode == TEXT:
                if not self.expected or server_frame(payload) != self.expected:
                    raise WrongAnswer(f"a socket heard {payload[:SIZE]!r} and not {self.expected[2:]!r}")
                self.heard(self)
            elif opcode == PING:
                self.write(client_frame(payload, PONG))
            elif opcode == CLOSE and not self.load.closing:
                raise WrongAnswer(f"a socket was closed with {int.from_bytes(payload[:2], 'big')} {payload[2:]!r}")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if not self.load.closing:
            self.load.fail(WrongAnswer(f"a connection was lost: {error or 'closed by the server'}"))


class Load:
    """The open sockets and their measurement."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        #: The sockets that were set aside.
        self.idle: list[Socket] = []
        self.request = b""
        self.deflate = False
        self.closing = False
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.sending = False
        self.waiting = 0
        self.all_heard: asyncio.Future[None]
        self.broadcasts = 0
        self.senders: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}

    def fail(self, error: Exception) -> None:
        """End the command with this error; only the first one counts."""
        if not self.failure.done():
            self.failure.set_exception(error)

    def unexpected(self, socket: Socket) -> None:
        """End the command, as a socket got a message that it does not expect."""
        self.fail(WrongAnswer("an unexpected message came"))

    async def until(self, done: asyncio.Future[Any], seconds: float, otherwise: Callable[[], str]) -> None:
        """Wait for ``done``, unless a failure ends the command."""
        await asyncio.wait({done, self.failure}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self.failure.done():
            self.failure.result()
        if not done.done():
            raise WrongAnswer(otherwise())
        done.result()

    async def hold(self, seconds: float) -> None:
        """Wait for ``seconds``, unless a failure ends the command."""
        await asyncio.wait({self.failure}, timeout=seconds)
        if self.failure.done():
            self.failure.result()

    # -- commands --------------------------------------------------------------------------------

    async def open(self, port: int, path: str, count: int, at_once: int = 50, deflate: bool = False) -> dict[str, Any]:
        """Open ``count`` sockets, ``at_once`` handshakes at a time; return the seconds until the last accept."""
        self.request = handshake("127.0.0.1", port, path, deflate)
        self.deflate, self.closing = deflate, False
        loop = asyncio.get_running_loop()
        turns = iter(range(count))

        async def one_after_another() -> None:
            for _ in turns:
                _, socket = await loop.create_connection(lambda: Socket(self), "127.0.0.1", port)
                await socket.opened

        begin = time.perf_counter()
        opening = asyncio.gather(*(one_after_another() for _ in range(min(at_once, count))))
        await self.until(opening, 120, lambda: f"only {self._open} of {count} sockets were accepted within 120 s")
        return {"seconds": time.perf_counter() - begin}

    @property
    def _open(self) -> int:
        return sum(socket.opened.done() for socket in self.sockets)

    async def close(self) -> dict[str, Any]:
        """Close every socket as a browser does, and wait until the server has closed each connection."""
        self.closing = True
        frame = client_frame((1000).to_bytes(2, "big"), CLOSE)
        for socket in self.sockets:
            socket.write(frame)
        if self.sockets:
            closed = asyncio.gather(*(socket.closed for socket in self.sockets))
            await self.until(closed, PATIENCE, lambda: "connections stayed open after the closing handshake")
        self.sockets.clear()
        return {}

    async def echo(self, warm: float, seconds: float, pids: list[int]) -> dict[str, Any]:
        """Let each socket send, wait for its echo, and send the next; count for ``seconds`` after ``warm``."""
        self._begin(sending=True)
        return await self._counted(warm, seconds, pids)

    async def pace(self, interval: float, warm: float, seconds: float, pids: list[int]) -> dict[str, Any]:
        """Let each socket send every ``interval`` seconds, spread evenly; count for ``seconds`` after ``warm``.

        If a socket's echo is missing when the next message is due, the socket sends that message after the echo. Its
        latency then counts from the time at which it was due.
        """
        loop = asyncio.get_running_loop()

        def said(socket: Socket, due: float) -> None:
            if self.sending:
                self._say(socket)
                socket.begun = due
            else:
                self._rest(socket)

        def echoed(socket: Socket) -> None:
            self.latencies.append(time.perf_counter() - socket.begun)
            due = socket.begun + interval
            loop.call_later(max(0.0, due - time.perf_counter()), said, socket, due)

        self._prepare(echoed)
        self.sending = True
        begin = time.perf_counter()
        for number, socket in enumerate(self.sockets):
            wait = interval * number / len(self.sockets)
            loop.call_later(wait, said, socket, begin + wait)
        return await self._counted(warm, seconds, pids)

    async def _counted(self, warm: float, seconds: float, pids: list[int]) -> dict[str, Any]:
        await self.hold(warm)
        self.latencies = []
        window = Window(pids)
        await self.hold(seconds)
        measured = window.end(self.latencies)
        self.sending = False
        await self._all_echoed()
        return measured

    async def set_aside(self) -> dict[str, Any]:
        """Leave the open sockets idle until they are brought back."""
        for socket in self.sockets:
            socket.expected, socket.heard = b"", self.unexpected
        self.idle += self.sockets
        self.sockets = []
        return {}

    async def bring_back(self) -> dict[str, Any]:
        """Use the sockets that were set aside again, together with the others."""
        self.sockets += self.idle
        self.idle = []
        return {}

    async def echo_once(self) -> dict[str, Any]:
        """Send one echo on each socket."""
        self._begin(sending=False)
        await self._all_echoed()
        return {}

    def _begin(self, sending: bool) -> None:
        self._prepare(self._echoed)
        self.sending = sending
        for socket in self.sockets:
            self._say(socket)

    def _prepare(self, heard: Callable[[Socket], None]) -> None:
        for number, socket in enumerate(self.sockets):
            if not socket.frames:
                texts = [f"{number:06}:{step:02}:".ljust(SIZE, "x").encode() for step in range(RING)]
                socket.frames = [(client_frame(text, deflate=self.deflate), server_frame(text)) for text in texts]
            socket.heard = heard
        self.waiting = len(self.sockets)
        self.all_heard = asyncio.get_running_loop().create_future()

    async def _all_echoed(self) -> None:
        await self.until(self.all_heard, PATIENCE, lambda: f"{self.waiting} echoes did not come within {PATIENCE:g} s")

    def _say(self, socket: Socket) -> None:
        frame, socket.expected = socket.frames[socket.step]
        socket.step = (socket.step + 1) % RING
        socket.begun = time.perf_counter()
        socket.write(frame)

    def _echoed(self, socket: Socket) -> None:
        self.latencies.append(time.perf_counter() - socket.begun)
        if self.sending:
            self._say(socket)
        else:
            self._rest(socket)

    def _rest(self, socket: Socket) -> None:
        socket.expected = b""
        self.waiting -= 1
        if not self.waiting:
            self.all_heard.set_result(None)

    async def fan(
        self, group: str, warm: float, seconds: float, pids: list[int], sender: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Broadcast to every socket, one message at a time: from ``sender``, else from the first socket."""
        pipe = self._sender(sender).stdin if sender else None
        assert pipe or not sender
        times: list[float] = []
        window: Window | None = None
        begin = time.perf_counter()
        while True:
            self.broadcasts += 1
            text = f"{self.broadcasts:08}:".ljust(SIZE, "x")
            frame = server_frame(text.encode())
            said = client_frame(text.encode())
            for socket in self.sockets:
                socket.expected, socket.heard = frame, self._told
            self.waiting = len(self.sockets)
            self.all_heard = asyncio.get_running_loop().create_future()
            start = time.perf_counter()
            if pipe:
                pipe.write(json.dumps({"do": "group", "group": group, "text": text}).encode() + b"\n")
                pipe.flush()
            else:
                self.sockets[0].write(said)
            await self.until(
                self.all_heard, PATIENCE, lambda: f"{self.waiting} of {len(self.sockets)} members heard nothing"
            )
            end = time.perf_counter()
            if window:
                times.append(end - start)
                if end - begin > warm + seconds:
                    break
            elif end - begin > warm:
                window = Window(pids)
        measured = window.end(times)
        # Without the client's own work between two broadcasts.
        return {**measured, "deliveries": len(self.sockets) * len(times) / sum(times)}

    def _told(self, socket: Socket) -> None:
        socket.expected = b""
        self.waiting -= 1
        if not self.waiting:
            self.all_heard.set_result(None)

    def _sender(self, command: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Return the process that sends, started once."""
        args = tuple(command["args"])
        if args not in self.senders:
            process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=command["env"])
            self.senders[args] = process
            assert process.stdout
            process.stdout.readline()
        return self.senders[args]

    async def http(
        self, port: int, path: str, body: str, connections: int, warm: float, seconds: float, pids: list[int]
    ) -> dict[str, Any]:
        """GET the page repeatedly on a number of kept connections."""
        return await requests(port, path, body.encode(), connections, warm, seconds, pids)

    def end(self) -> None:
        """Cut the remaining connections, and stop the senders."""
        self.closing = True
        for socket in self.sockets + self.idle:
            socket.transport.abort()
        for process in self.senders.values():
            assert process.stdin
            process.stdin.close()
            process.wait(10)


async def main() -> None:
    """Answer commands until standard input ends."""
    load = Load()
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda loop, context: load.fail(context.get("exception") or WrongAnswer(context["message"]))
    )
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("{}", flush=True)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            answer = await getattr(load, command.pop("do"))(**command)
        except WrongAnswer as error:
            answer = {"error": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    load.end()


if __name__ == "__main__":
    uvloop.run(main())
