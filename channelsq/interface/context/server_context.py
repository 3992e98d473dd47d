"""The state that all connections of one interface server share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from typing import Any, Protocol

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core import names
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.counters import Counters
from channelsq.interface.context.deadline_ticker import DeadlineTicker, period_of
from channelsq.interface.context.histograms import Measures
from channelsq.interface.context.page_joins import PageJoins, tell_pages
from channelsq.interface.context.unconsumed import Unconsumed
from channelsq.interface.link import link_for
from channelsq.interface.link.replies import Delivery, Replies
from channelsq.interface.presence.clients import Clients
from channelsq.interface.presence.heartbeat import Heartbeat
from channelsq.interface.presence.heartbeats import Heartbeats, heartbeat_of
from channelsq.interface.supervision.peers import Peers
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.security.origins import OriginPolicy

logger = logging.getLogger("channelsq.interface")

#: The largest number of requests that time out in one turn of the deadline ticker.
_MOST_GIVEN_UP = 1000


class Socket(Protocol):
    """A WebSocket, from its connect until the application has handled its disconnect."""

    @property
    def is_disconnect_published(self) -> bool:
        """True if the layer has the socket's disconnect."""

    def on_tick(self, now: float) -> None:
        """Check for overdue deadlines."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake."""

    def publish_rest(self) -> None:
        """Publish all remaining messages without waiting for those before them."""


class Waiting(Protocol):
    """A request that waits for its answer."""

    @property
    def since(self) -> float:
        """The start of the wait, by the event loop's time."""

    def on_tick(self, now: float) -> bool:
        """Give up if no answer came in time; return whether the request gave up."""


class ServerContext:
    """Settings, counters, the link to the layer, and the sockets of one server.

    Args:
        config: the interface's settings.
        layer: the channel layer.
        peers: the processes that serve together with this one, if they exchange metrics.
    """

    def __init__(self, config: InterfaceConfig, layer: ChannelLayerWrapper, peers: Peers | None = None) -> None:
        self.config = config
        self.peers = peers
        self.limits = config.limits
        self.layer = layer
        #: See :meth:`BaseChannelLayer.prepare`.
        self.prepare = layer.channel_layer.prepare
        #: Whether clients' messages may be packed without :attr:`prepare`: not if the layer overrides it.
        self.packs_alone = type(layer.channel_layer).prepare is BaseChannelLayer.prepare
        #: Seconds that a request or a connect may wait for room: less than it may wait for its answer.
        patiences = self.limits.room_patience, self.config.http_timeout / 2, self.config.accept_timeout / 2
        self.room_patience = min(patiences)
        #: The keys of replies that were logged as unknown.
        self.unknown_keys: set[str] = set()
        #: The time, by the event loop's clock, from which an unaccepted socket is logged again.
        self.tell_unaccepted = 0.0
        self.stats = Counters()
        #: Measured durations; None without ``--metrics``.
        self.measures: Measures | None = None
        #: The origins whose pages may open a WebSocket.
        self.origins = OriginPolicy.from_settings()
        #: Answers sockets of live pages.
        self.page_joins = PageJoins(config.root_path, layer.alias)
        self.link = link_for(layer, self.stats)
        self.sockets: set[Socket] = set()
        #: The channels that no worker consumes.
        self.unconsumed = Unconsumed(layer, config)
        #: The number of HTTP responses that have begun and are not complete.
        self.streaming = 0
        #: Requests that wait for a single response, the oldest first.
        self.single_responses: dict[Waiting, None] = {}
        #: Bytes of request bodies that are kept for another run, see :mod:`channelsq.interface.http.body_spool`.
        self.bodies_kept = 0
        #: The number of connected clients, of every protocol.
        self.connections = 0
        #: The number of connections of each client.
        self.clients = Clients(config)
        #: Tells other interface servers that this one lives; None if the layer has no place for heartbeats.
        self.heartbeat: Heartbeat | Heartbeats | None = None
        #: True once the server was told to shut down: it is not ready for more clients.
        self.draining = False
        #: True once the server accepts no new work.
        self.ending = False
        self.loop: asyncio.AbstractEventLoop
        self.replies: Replies
        self._ticker = DeadlineTicker(self.sockets, period_of(config), self._give_up_requests)

    async def start(self) -> None:
        """Connect to the channel layer."""
        self.loop = asyncio.get_running_loop()
        if self.config.metrics and self.config.status_path:
            self.measures = Measures(self.loop.time)
        self.replies = Replies(self.loop, self.stats, self._on_unknown)
        for part in self.layer.channel_layer.parts:
            if part.signing is not None:
                part.signing.listener = functools.partial(self._count_from_thread, "link.unsigned")
            if not part.in_process:
                undecrypted = functools.partial(self._count_from_thread, "link.undecrypted")
                part.protection.encryption.listener = undecrypted
            part.foreign_listener = functools.partial(self._count_from_thread, "replies.foreign")
        prefixes = [
            names.process_part(self.layer.channel_layer.new_channel(pattern))
            for pattern in ("websocket.send!", "http.response!")
        ]
        await self.link.start(prefixes, self.replies)
        self.heartbeat = heartbeat_of(
            self.layer,
            self.limits,
            self._on_buried,
            self.config.root_path,
            on_restored=functools.partial(tell_pages, self.replies),
        )
        if self.heartbeat is not None:
            # Membership changes of this process' sockets, see channelsq.layers.contract.membership_notes.
            self.replies.register(prefixes[0], self.heartbeat)
            self.link.on_back = self.heartbeat.check_now
            self.heartbeat.start()
        self._ticker.start()

    async def stop(self) -> None:
        """Disconnect from the channel layer."""
        self._ticker.stop()
        self.page_joins.stop()
        if self.peers is not None:
            self.peers.leave()
        if self.heartbeat is not None:
            await asyncio.to_thread(self.heartbeat.stop)
        await self.link.stop()

    def _count_from_thread(self, name: str) -> None:
        """Count an event that any thread has noticed."""
        with contextlib.suppress(RuntimeError):  # if the loop is closed
            self.loop.call_soon_threadsafe(self.stats.count, name)

    def _on_buried(self) -> None:
        """Close every socket: other servers have told the application that they are gone.  Called in a thread."""
        self.loop.call_soon_threadsafe(self._close_all)

    def _close_all(self) -> None:
        for socket in list(self.sockets):
            socket.close(1012, "other servers declared this server dead")

    def unpublished_disconnects(self) -> int:
        """Return the number of sockets whose end would stay unknown to the workers if the process ended now.

        Published messages are safe with a broker; messages in this process' memory must have been handled, too.
        """
        if self.layer.channel_layer.in_process:
            return len(self.sockets)
        return sum(not socket.is_disconnect_published for socket in self.sockets)

    def new_channel(self, pattern: str) -> str:
        """Return a new channel name of this process."""
        return self.layer.channel_layer.new_channel(pattern)

    def prepare_limit(self) -> int:
        """Return the largest message, in bytes, that the layer takes."""
        return self.layer.channel_layer.message_size_limit

    def _give_up_requests(self, now: float) -> None:
        oldest = next(iter(self.single_responses), None)
        if oldest is not None:
            self.unconsumed.waits(names.HTTP_REQUEST, oldest.since, now)
        self.unconsumed.on_tick(now)
        for waiting in list(itertools.islice(self.single_responses, _MOST_GIVEN_UP)):
            if not waiting.on_tick(now):
                break  # all later requests are younger

    def _on_unknown(self, channel: str, delivery: Delivery) -> None:
        """Handle a reply to a client that has left: tell a producer that waits to send more."""
        self.say_gone(delivery.message)
        if delivery.group is not None:
            # A socket leaves its groups when it closes.  An HTTP request does not, as few requests are in any.
            self.link.forget(channel)

    def say_gone(self, message: dict[str, Any]) -> None:
        """Tell the producer of ``message``, if it asks, that its client is gone."""
        credit = message.get("credit_channel")
        if credit is not None:
            self._credit(credit, {"gone": True})

    def say_written(self, credit: str) -> None:
        """Tell a producer that the client has taken the sent parts."""
        self._credit(credit, {"credit": True})

    def say_go(self, credit: str, body_channel: str | None) -> None:
        """Tell a worker that another run may answer a request, and on which channel its body is sent again."""
        self._credit(credit, {"credit": True, "body_channel": body_channel})

    def _credit(self, channel: Any, message: dict[str, Any]) -> None:
        try:
            send = self.layer.prepare(channel, message)
        except TypeError as error:
            logger.warning("a credit_channel cannot be used: %s", error, extra={"action": "bad_credit_channel"})
            return
        self.link.publish(send)
