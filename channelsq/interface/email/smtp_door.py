"""The SMTP server: aiosmtpd's, with limits on its connections and on what each may send."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, Envelope, Session

from channelsq.core.logs import LogLimit
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.gateway.outcomes import Rejected, TryLater

logger = logging.getLogger("channelsq.interface.gateway")

#: The most recipients of one mail, the longest address, and the most commands of one kind on one connection.
MOST_RECIPIENTS, LONGEST_ADDRESS, MOST_COMMANDS = 50, 254, 1000

#: Bytes of commands that a connection may send beside a mail.
_COMMANDS = 256 * 1024


class Received(NamedTuple):
    """A mail as it came in."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    #: The address of the client, ``host:port``.
    client: str
    is_encrypted: bool


class SmtpDoor:
    """The server.

    Args:
        deliver: takes a mail over; it may raise TryLater (451) and Rejected (554).
        accepts: returns whether mails to an address are taken.
        stats: the server's counters.
        hostname: the server's name in its greeting.
        connections: the most connections at once.
        mail_size: the most bytes of a mail.
        seconds: the longest silence of a client, and the longest time for a mail.
        tls: offers STARTTLS; None without.
    """

    def __init__(
        self,
        deliver: Callable[[Received], Awaitable[None]],
        accepts: Callable[[str], bool],
        stats: Counters,
        *,
        hostname: str,
        connections: int,
        mail_size: int,
        seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._deliver = deliver
        self._accepts = accepts
        self.stats = stats
        self.most_connections = connections
        self.mail_size = mail_size
        self._hostname = hostname
        self._seconds = seconds
        self._tls = tls
        self.open: set[_Connection] = set()
        self.is_closing = False
        self.refusals = LogLimit()
        self._delivering = 0
        self._servers: list[asyncio.Server] = []

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets; errors are those of asyncio."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            self._servers.append(await loop.create_server(self._connection, sock=bound))

    def _connection(self) -> _Connection:
        return _Connection(
            self,
            data_size_limit=self.mail_size,
            enable_SMTPUTF8=True,
            hostname=self._hostname,
            ident="channelsq",
            tls_context=self._tls,
            timeout=self._seconds,
            command_call_limit={"*": MOST_COMMANDS},
            loop=asyncio.get_running_loop(),
        )

    async def close(self) -> None:
        """Take no more mails, and answer those that have arrived."""
        self.is_closing = True
        for server in self._servers:
            server.close()
        while self._delivering:
            await asyncio.sleep(0.02)
        for connection in list(self.open):
            connection.end(b"421 4.3.2 the server is shutting down\r\n")

    def refuse(self, status: int, reason: str, client: str) -> None:
        """Count a refusal, and log it, at most once a second."""
        self.stats.refuse("smtp", status, reason)
        if self.refusals.allows():
            logger.warning("%s got %d: %s", client, status, reason, extra=extra(reason, client))

    # -- called by aiosmtpd

    async def handle_MAIL(
        self, server: _Connection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the sender of a mail."""
        server.begin_mail()
        if self.is_closing:
            return "421 4.3.2 the server is shutting down"
        if address in ("", "<>"):
            self.refuse(550, "null_sender", _client(session))
            return "550 5.7.1 bounces and automatic mails are not accepted here"
        if not _is_address(address):
            return "501 5.1.7 this is no address"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: _Connection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient of a mail."""
        if not _is_address(address) or not self._accepts(address):
            self.refuse(550, "unknown_recipient", _client(session))
            return "550 5.1.1 no mail for this address here"
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: _Connection, session: Session, envelope: Envelope) -> str:
        """Take a mail."""
        server.begin_mail()
        client = _client(session)
        assert isinstance(envelope.content, bytes)
        assert envelope.mail_from is not None
        received = Received(
            envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content, client, session.ssl is not None
        )
        self._delivering += 1
        try:
            await self._deliver(received)
        except TryLater as error:
            self.refuse(451, "try_later", client)
            return f"451 4.3.0 {error.reason}"
        except Rejected as error:
            self.refuse(554, error.code or "rejected", client)
            return f"554 5.6.0 {error.reason}"
        finally:
            self._delivering -= 1
        return "250 2.0.0 accepted"

    async def handle_exception(self, error: Exception) -> str:
        """Answer after a fault of this server, without its text."""
        logger.error("a mail failed", exc_info=error, extra=extra("mail_failed"))
        return "451 4.3.0 the server failed"


class _Connection(SMTP):
    """One connection."""

    #: The longest line: many programs ignore the 1000 bytes of RFC 5321.
    line_length_limit = 64 * 1024

    def __init__(self, door: SmtpDoor, **options: Any) -> None:
        super().__init__(door, **options)
        self._door = door
        self._is_refused = False
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self._door.open and len(self._door.open) >= self._door.most_connections:
            assert isinstance(transport, asyncio.Transport)
            self._is_refused = True
            self._door.refuse(421, "too_many_connections", str(transport.get_extra_info("peername")))
            transport.write(b"421 4.3.2 too many connections\r\n")
            transport.close()
            return
        self._door.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._door.open.discard(self)
        if not self._is_refused:
            super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless the client sends more than a mail has: aiosmtpd keeps a line without an end."""
        if self._is_refused:
            return
        self._received += len(data)
        if self._received > self._door.mail_size + _COMMANDS:
            self._is_overflowing()
            return
        super().data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._is_refused else super().eof_received()

    def begin_mail(self) -> None:
        """Count the bytes of the next mail."""
        self._received = 0

    def _is_overflowing(self) -> None:
        if isinstance(self.transport, asyncio.Transport) and not self.transport.is_closing():
            self._door.refuse(552, "mail_too_large", str(self.transport.get_extra_info("peername")))
            self.end(b"552 5.3.4 too much data\r\n")

    def end(self, last: bytes) -> None:
        """Send a last line, and close the connection."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.write(last)
            self.transport.close()


def _client(session: Session) -> str:
    peer = session.peer
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "-"


def _is_address(address: str) -> bool:
    local, at, domain = address.rpartition("@")
    return bool(local and at and domain) and len(address) <= LONGEST_ADDRESS and address.isprintable()
