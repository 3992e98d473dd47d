"""A TCP proxy before one server whose connections can be cut, frozen, delayed or forgotten.  In one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Loop:
    """An event loop in a thread, for proxies and clients."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Return the result of a coroutine that runs there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def ports_of(pid: int) -> set[int]:
    """Return the local ports of a process's TCP connections."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            sockets.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[9] in sockets}


class Proxy:
    """Passes what comes to ``port`` on to the server at ``target``, both on 127.0.0.1.

    One for each process, so that one alone loses its way.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.frozen = False
        #: Seconds by which everything is late.
        self.delay = 0.0
        self.links: set[_Link] = set()
        self._outcast: int | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Side(_Link(self)), "127.0.0.1", self.port)

    @property
    def is_cut(self) -> bool:
        """True if it accepts no connections."""
        return self._server is None

    async def stop(self) -> None:
        """End every connection, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self.links):
            link.abort()

    # -- what can happen to a network

    async def cut(self) -> None:
        """Connections are reset, new ones refused."""
        await self.stop()

    async def cut_off(self, pid: int) -> None:
        """Reset the connections of one process, and refuse it new ones."""
        self._outcast = pid
        for link in list(self.links):
            if self.refuses(link.port):
                link.abort()

    def refuses(self, port: int) -> bool:
        """Return whether a connection from a local port belongs to the process that is cut off."""
        return self._outcast is not None and port in ports_of(self._outcast)

    async def drop(self) -> int:
        """Reset the connections that there are; new ones are passed on.  Returns how many there were."""
        links = list(self.links)
        for link in links:
            link.abort()
        return len(links)

    async def freeze(self) -> None:
        """Nothing passes, in connections that there are and in new ones; nothing is lost either."""
        self.frozen = True
        for link in self.links:
            link.hold()

    async def lag(self, delay: float) -> None:
        """Everything is late."""
        self.delay = delay

    async def forget(self) -> None:
        """Lose all that goes through the present connections, as a router does that has forgotten them.

        They stay so; new ones are passed on.
        """
        for link in self.links:
            link.forgotten = True

    async def heal(self) -> None:
        """All is well again, but for connections that were forgotten."""
        self.frozen, self.delay, self._outcast = False, 0.0, None
        await self.start()
        for link in list(self.links):
            link.go_on()


class _Link:
    """A connection's two sides."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.forgotten = False
        self.near: _Side | None = None
        self.far: _Side | None = None
        self._connecting = False

    def begun(self, near: _Side) -> None:
        """A process has connected."""
        self.near = near
        self.port: int = near.transport.get_extra_info("peername")[1]
        if self.proxy.is_cut or self.proxy.refuses(self.port):  # accepted just before; of the process that is cut off
            near.transport.abort()
            return
        self.proxy.links.add(self)
        near.transport.pause_reading()
        if not self.proxy.frozen:
            self._connect()

    def _connect(self) -> None:
        self._connecting = True
        self._task = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        assert self.near is not None
        far = _Side(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self.proxy.target)
        except OSError:
            self.abort()
            return
        self.far = far
        if self.near.transport.is_closing():
            self.abort()
        elif self.proxy.frozen:
            self.hold()
        else:
            self.go_on()

    def hold(self) -> None:
        """Read nothing."""
        for side in self._sides():
            side.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self.far is None:
            if not self._connecting:
                self._connect()
            return
        for side in self._sides():
            if not side.transport.is_closing():
                side.transport.resume_reading()

    def pass_on(self, source: _Side, data: bytes) -> None:
        """Write what one side has sent to the other."""
        other = self.far if source is self.near else self.near
        if not self.forgotten and other is not None:
            other.write(data, self.proxy.delay)

    def ended(self, side: _Side) -> None:
        """One side is closed: so is the other, if it is heard of there."""
        if not self.forgotten or side is self.near:
            for each in self._sides():
                each.finish()
            self.proxy.links.discard(self)

    def abort(self) -> None:
        """End both sides at once."""
        self.proxy.links.discard(self)
        for side in self._sides():
            side.transport.abort()

    def _sides(self) -> list[_Side]:
        return [side for side in (self.near, self.far) if side is not None]


class _Side(asyncio.Protocol):
    """One of the two sockets."""

    transport: asyncio.Transport

    def __init__(self, link: _Link) -> None:
        self.link = link
        self._late: deque[tuple[float, bytes]] = deque()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.link.near is None:
            self.link.begun(self)

    def data_received(self, data: bytes) -> None:
        self.link.pass_on(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.ended(self)

    def write(self, data: bytes, delay: float) -> None:
        """Send it, after ``delay`` seconds and what is late already."""
        if not delay and not self._late:
            self.transport.write(data)
            return
        loop = asyncio.get_running_loop()
        self._late.append((loop.time() + delay, data))
        if len(self._late) == 1:
            loop.call_later(delay, self._write_late)

    def _write_late(self) -> None:
        loop = asyncio.get_running_loop()
        while self._late and self._late[0][0] <= loop.time():
            with contextlib.suppress(RuntimeError):
                self.transport.write(self._late.popleft()[1])
        if self._late:
            loop.call_later(max(0.0, self._late[0][0] - loop.time()), self._write_late)
        elif self._closing:
            self.transport.close()

    def finish(self) -> None:
        """Close it, behind what it is still to be sent."""
        self._closing = True
        if not self._late:
            self.transport.close()
