"""One connection to Redis: commands out, replies in, in the same order; made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any, Protocol, cast

import hiredis

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.redis_address import Address
from channelsq.redis_core.commands import Command, pack
from channelsq.redis_core.server_errors import MAY_WRITE_IF_FULL, raise_error

logger = logging.getLogger("channelsq.interface.link")

#: What a reply may be: None, int, bytes, list, or an error as a value.
ReplyError = hiredis.ReplyError

#: Seconds between two tries to connect: the first wait, and the longest.
_WAITS = 0.1, 1.0

#: Seconds that a server may leave a command unanswered.  Longer than one that is merely stopped for a while:
#: it does all that it was sent when it goes on, and what was sent a second time is then there twice.
SILENCE = 15.0

#: Seconds after which a host that acknowledges nothing is gone.
_UNACKNOWLEDGED = 5

#: Seconds that the last bytes and a TLS goodbye may take.
_FAREWELL = 1.0

_NOTHING = object()


class User(Protocol):
    """The user of a connection; its methods are called in the event loop."""

    def opened(self) -> None:
        """There is a connection: nothing has been sent on it."""

    def replied(self, reply: Any) -> None:
        """Handle the reply to the oldest command without one."""

    def lost(self, error: BrokerUnavailable) -> None:
        """Handle the loss of the connection, and of every reply that is still due."""


class _Wire(asyncio.Protocol):
    """The asyncio protocol of a connection."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self.transport: asyncio.Transport | None = None
        #: Replies to what a connection begins with; None when that is over.
        self.beginning: list[Any] | None = []
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: BaseException | None = None
        #: The server, for :class:`channelsq.redis_io.primaries.Primary`; None while there is no connection.
        self.followed_address: tuple[str, int] | None = None

    def primary_moved(self) -> None:
        """End the connection: another server is the primary now.  Called in another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._connection.loop.call_soon_threadsafe(self.fail, ConnectionError("another server is the primary now"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
            _notice_dead_hosts(sock)

    def data_received(self, data: bytes) -> None:
        reader, connection = self._reader, self._connection
        try:
            reader.feed(data)
            if self.beginning is not None:
                while (reply := reader.gets()) is not _NOTHING:
                    self.beginning.append(reply)
                self.changed.set()
                return
            connection.heard = connection.loop.time()
            gets, replied = reader.gets, connection.user.replied
            while (reply := gets()) is not _NOTHING:
                try:
                    replied(reply)
                except Exception:  # one client's fault must not cost the others their replies
                    logger.exception("a reply of the broker failed", extra=extra("reply_failed"))
        except hiredis.ProtocolError as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End it because of ``error``."""
        self.error = self.error or error
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.followed_address = None
        self.error = self.error or exc
        self.ended.set()
        self.changed.set()


class RedisConnection:
    """Keeps a connection to ``address`` for ``user``.

    Args:
        address: the server.
        user: what the connection is for.
        role: what it does, for the log: ``"publishing"``.
    """

    def __init__(self, address: Address, user: User, role: str) -> None:
        self.address = address
        self.user = user
        self._role = role
        self.loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._wire: _Wire | None = None
        self._write: Any = None
        #: Whether commands can be sent.
        self.is_open = False
        #: The loop's time at which something last came from the server.
        self.heard = 0.0
        #: Set while, and only while, there is a connection.
        self.ready = asyncio.Event()
        #: Why there is no connection now.
        self.error: BrokerUnavailable = BrokerUnavailable(address.shown, "not connected yet")

    def start(self) -> None:
        """Connect, now and after each loss."""
        self.loop = asyncio.get_running_loop()
        self._task = self.loop.create_task(self._keep())

    async def stop(self) -> None:
        """Close the connection, with what has been written, and make no other."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._write = None
        self.is_open = False
        wire = self._wire
        if wire is not None and wire.transport is not None:
            wire.transport.close()
            try:
                async with asyncio.timeout(_FAREWELL):
                    await wire.ended.wait()  # the loop may end next, and with it what has not been written yet
            except TimeoutError:
                wire.transport.abort()
                await wire.ended.wait()

    def write(self, data: bytes) -> None:
        """Send packed commands; only while :attr:`is_open`."""
        assert self._wire is not None
        assert self._wire.transport is not None
        if not self._wire.transport.is_closing():  # else it is lost, and its user is told so in a moment
            self._write(data)

    def fail(self, reason: object) -> None:
        """Give the connection up."""
        if self._wire is not None:
            self._wire.fail(OSError(str(reason)))

    # -- keeping it -------------------------------------------------------------------------

    async def _keep(self) -> None:
        wait, longest = _WAITS
        is_reported = False
        while True:
            error: object
            try:
                wire = await self._connect()
            except Exception as failure:  # credentials may come from code that fails in its own ways
                error = failure if str(failure) else f"no connection within {self.address.connect_timeout:g} s"
            else:
                if is_reported:
                    logger.info("%s: %s again", self.address.shown, self._role, extra=extra("broker_back"))
                wait, is_reported = _WAITS[0], False
                self._open(wire)
                await wire.ended.wait()
                error = wire.error or "the server closed the connection"
            self.error = BrokerUnavailable(self.address.shown, error)
            if not is_reported:
                is_reported = True
                logger.error("%s; trying again until it is back", self.error, extra=extra("broker_lost", self._role))
            if self._write is not None:
                self._write = None
                self.is_open = False
                self.ready.clear()
                self.user.lost(self.error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)

    def _open(self, wire: _Wire) -> None:
        assert wire.transport is not None
        wire.beginning = None
        self.heard = self.loop.time()
        self._write = wire.transport.write
        self.is_open = True
        self.ready.set()
        self.user.opened()

    async def _connect(self) -> _Wire:
        address = self.address
        # A server that refuses to write is no use yet.  One that is full is: it may be read from, and told who left.
        commands: list[Command] = [*await asyncio.to_thread(address.entry), MAY_WRITE_IF_FULL]
        host, port = place = await asyncio.to_thread(address.locate)
        async with asyncio.timeout(address.connect_timeout):
            wire = self._wire = _Wire(self)
            if address.primary is not None:
                wire.followed_address = place
                address.primary.follow(wire)
            try:
                if address.path is not None:
                    await self.loop.create_unix_connection(lambda: wire, address.path)
                elif address.tls is None:
                    await self.loop.create_connection(lambda: wire, host, port)
                else:
                    await self.loop.create_connection(lambda: wire, host, port, ssl=address.tls, server_hostname=host)
                await self._begin(wire, commands)
            except BaseException:
                if wire.transport is not None:
                    wire.transport.abort()
                raise
        return wire

    async def _begin(self, wire: _Wire, commands: list[Command]) -> None:
        assert wire.transport is not None
        assert wire.beginning is not None
        wire.transport.write(pack(commands))
        while len(wire.beginning) < len(commands):
            await wire.changed.wait()
            wire.changed.clear()
            if wire.ended.is_set():
                raise wire.error or ConnectionError("the server closed the connection")
        for reply in wire.beginning:
            raise_error(reply)


def _notice_dead_hosts(sock: Any) -> None:
    """Have the system end a connection to a host that is gone; a process that is stopped is another matter."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _UNACKNOWLEDGED),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED * 1000),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
