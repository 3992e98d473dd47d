"""The link to Redis Streams: two connections in the event loop, one to publish and one to listen, and no thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link.link_contract import Link, Publication
from channelsq.interface.link.redis_address import Address
from channelsq.interface.link.redis_publisher import Publishing
from channelsq.interface.link.replies import Replies
from channelsq.interface.link.reply_listener import Listening
from channelsq.interface.link.threaded_link import ThreadedLink
from channelsq.layers.groups.moved_sockets import moved_command
from channelsq.layers.wire.stream_commands import StreamCommands

#: How often (seconds) it is looked for what is overdue.
_TICK = 0.25

#: Seconds that the start waits for a connection.
_FIRST_CONNECTION = 2.0


class StreamsLink(Link):
    """See :class:`channelsq.interface.link.link_contract.Link`.

    Args:
        address: where the layer's Redis is.
        limit, limit_bytes: how many publications, and how much of them, may wait; more are refused with ChannelFull.
    """

    def __init__(
        self,
        layer: ChannelLayerWrapper,
        stats: Counters,
        address: Address,
        *,
        limit: int = 10_000,
        limit_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        super().__init__(layer, stats)
        channel_layer = address.layer
        self._groups_here = address.groups_here
        self._address = address
        self._commands = StreamCommands(
            address.key_prefix, channel_layer.expiry, channel_layer.queue_prefix, channel_layer.protection
        )
        self._publishing = Publishing(
            address,
            channel_layer,
            self._commands,
            self._refused,
            self._publishing_opened,
            limit=limit,
            limit_bytes=limit_bytes,
        )
        self._listening: Listening | None = None
        #: For what is rare, or goes to another server; made when it is needed.
        self._other: ThreadedLink | None = None
        self._stopping = False

    async def _start(self, prefixes: list[str], replies: Replies) -> None:
        self._publishing.start()
        if prefixes:
            queues = [prefix[:-1] for prefix in prefixes]
            capacity = min(self._address.layer.reply_capacity(prefix) for prefix in prefixes)
            self._listening = Listening(self._address, self._commands, queues, replies, capacity)
            self._listening.start()
        self._tick()
        # The first clients must not be told that there is no broker.
        connections = [self._publishing.connection, *([self._listening.connection] if self._listening else [])]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_CONNECTION):
                for connection in connections:
                    await connection.ready.wait()

    async def _stop(self) -> int:
        self._stopping = True
        keys: list[str] = []
        if self._listening is not None:
            await self._listening.stop()
            keys = self._listening.keys
        # They have no reader any more.
        left = await self._publishing.stop([("UNLINK", *keys)] if keys else [])
        if self._other is not None:
            await self._other.stop()
        return left

    def _tick(self) -> None:
        if self._stopping:
            return
        now = self._loop.time()
        self._publishing.on_tick(now)
        if self._listening is not None:
            self._listening.on_tick(now)
        self._loop.call_later(_TICK, self._tick)

    @property
    def reachable(self) -> bool:
        return self._publishing.takes and (self._listening is None or self._listening.connection.is_open)

    @property
    def idle(self) -> bool:
        return self._publishing.idle and (self._other is None or self._other.idle)

    def submit(self, publication: Publication) -> None:
        send = publication.send
        if send.group or send.delay or "!" in send.target:
            self._through_threads().submit(publication)
        else:
            self._publishing.submit(publication)

    def mark_moved(self, channel: str, order: int) -> None:
        """Mark that a socket's messages go to this server from message ``order`` on, before the next message."""
        self._publishing.command(moved_command(self._address.layer.prefix, channel, order))

    def _forget(self, channel: str) -> None:
        if self._groups_here:
            self._publishing.forget(channel, functools.partial(self._forgotten, channel))
        else:
            self._through_threads().forget(channel)

    def _forgotten(self, channel: str, error: Exception | None) -> None:
        if error is not None:
            self._note(error, channel, quiet=True)
        super()._forgotten(channel, error)

    def _publishing_opened(self) -> None:
        if self.on_back is not None:
            self.on_back()

    def _refused(self, publication: Publication, error: Exception) -> None:
        self._note(error, publication.send.target, quiet=publication.publisher is not None)

    def _through_threads(self) -> ThreadedLink:
        if self._other is None:
            self._other = ThreadedLink(self.layer, self._stats)
            self._other.start_publishing()
        return self._other
