"""A request's body: its beginning travels with the request, the rest in numbered parts on a channel of its own.

The parts are kept until the response begins, so that another run of the request can have them again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from channelsq.delivery.attempts import PART
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.http.body_spool import Spool
from channelsq.interface.http.upload_bounds import Upload

logger = logging.getLogger("channelsq.interface.http")


class ClientLeft(Exception):
    """The client closed the connection."""


class Body:
    """The body of one request.

    Args:
        context: the state that all connections share.
        upload: the events of the client's upload.
    """

    #: Seconds between two attempts on a full channel: the first wait, and the longest.
    _WAITS = 0.01, 0.2

    def __init__(self, context: ServerContext, upload: Upload) -> None:
        self._context = context
        self._upload = upload
        self._chunk = min(context.limits.body_chunk, max(1, context.prepare_limit() // 2))
        self._buffer = bytearray()
        #: The time of the last progress: bytes that arrived, or a part that was sent.
        self.heard = 0.0
        #: Whether the client has sent the whole body.
        self.complete = False
        #: The channel of the rest; None if the whole body fits in the request's message.
        self.channel: str | None = None
        # Whether the reader of the channel still expects chunks.
        self._open = False
        self._spool: Spool | None = None
        # The bytes of the spool that were sent on the channel, and the number of parts.
        self._position = 0
        self._parts = 0

    async def beginning(self, limit: int) -> bytes:
        """Return the beginning for the request's message: at most ``limit`` bytes, and at most one chunk.

        Raises:
            ClientLeft: the client left before it had sent these bytes.
            Refused: the body is too large, or comes too slowly.
        """
        self._upload.check()
        size = max(0, min(limit, self._chunk))
        while not self.complete and len(self._buffer) <= size:
            await self._read()
        if self.complete and len(self._buffer) <= size:
            size = len(self._buffer)
        else:
            self.channel = self._context.new_channel("http.request.body?")
            self._spool = Spool(self._context, self.channel)
            self._open = True
        return self._take(size)

    async def send_rest(self) -> None:
        """Send the rest to :attr:`channel`.

        Raises:
            ClientLeft: the client left before it had sent the whole body.
            Refused: the body is too large, or comes too slowly.
        """
        while self._open:
            chunk = await self._next_chunk()
            assert self._spool is not None
            more = not self.complete or bool(self._buffer) or self._position < self._spool.size
            await self._put({"content": chunk, "more_content": more, "closed": False, PART: self._parts})
            self._parts += 1
            self._open = more
            self.heard = self._context.loop.time()

    async def _next_chunk(self) -> bytes:
        spool = self._spool
        assert spool is not None
        if self._position < spool.size:
            chunk = spool.read(self._position, self._chunk)
        else:
            while not self.complete and len(self._buffer) < self._chunk:
                await self._read()
            chunk = self._take(self._chunk)
            spool.write(chunk)
        self._position += len(chunk)
        return chunk

    def restart(self) -> str | None:
        """Send the rest again from its beginning, on a new channel; return it, or None if the rest is missing or empty.

        :meth:`send_rest` must not run meanwhile.
        """
        if self._spool is None or not self._spool.complete:
            return None
        self.channel = self._context.new_channel("http.request.body?")
        self._position = self._parts = 0
        self._open = True
        return self.channel

    def forget(self) -> None:
        """Keep nothing for another run: the response has begun."""
        if self._spool is not None:
            self._spool.close()

    async def client_left(self) -> None:
        """Wait until the client closes the connection, and raise ClientLeft."""
        while True:
            await self._read()

    def keep(self) -> None:
        """Send nothing to the channel: the request was refused, so no worker knows of it."""
        self._open = False

    def close(self) -> None:
        """End the body: tell the reader of the channel that no more parts follow."""
        self.forget()
        if self._open and self.channel is not None:
            self._open = False
            message = {"content": b"", "more_content": False, "closed": True}
            self._context.link.publish(self._context.layer.prepare(self.channel, message))

    async def _read(self) -> None:
        event = await self._upload()
        if event["type"] == "http.disconnect":
            raise ClientLeft
        assert event["type"] == "http.request"
        self._buffer += event.get("body", b"")
        self.heard = self._context.loop.time()
        self.complete = self.complete or not event.get("more_body", False)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _put(self, message: dict[str, Any]) -> None:
        """Send a chunk; while its channel is full, TCP slows down the client."""
        assert self.channel is not None
        wait, longest = self._WAITS
        while True:
            try:
                await self._context.link.published(self.channel, message)
                return
            except ChannelFull:
                self._context.stats.count("http.body_waits")
            except BrokerUnavailable as error:
                logger.warning("%s: %s; trying again", self.channel, error, extra=extra("body_delayed", self.channel))
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)
