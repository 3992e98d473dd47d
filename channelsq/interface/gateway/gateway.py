"""The base of interface servers for other protocols: subclass :class:`Gateway`, and run it with ``run_gateway``.

A gateway publishes its clients' messages on channels, hands the application's answers back to them, and sends out what
the application sends to channels of the gateway.  docs/how-to/extend/interface-servers.md has an example.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core import names
from channelsq.core.logs import LogLimit
from channelsq.exceptions import BrokerUnavailable, ChannelFull, MessageTooLarge
from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.basis.server_options import Option, flag_of
from channelsq.interface.basis.sockets import bind, cannot_listen, url_of
from channelsq.interface.gateway.channel_reader import ChannelReader
from channelsq.interface.gateway.gateway_config import OPTIONS, GatewayConfig
from channelsq.interface.gateway.gateway_pages import GatewayPages
from channelsq.interface.gateway.http_door import HttpDoor, HttpRequest, HttpResponse
from channelsq.interface.gateway.mailbox import Answer, Mailbox
from channelsq.interface.gateway.outbound import Outbound
from channelsq.interface.gateway.outcomes import Rejected, TryLater
from channelsq.interface.gateway.seen import Seen
from channelsq.interface.link import link_for
from channelsq.interface.link.replies import Delivery, Replies
from channelsq.interface.presence.heartbeat import Heartbeat
from channelsq.interface.presence.heartbeats import Heartbeats, heartbeat_of
from channelsq.interface.supervision.peers import Peers
from channelsq.interface.supervision.supervised import Supervised

logger = logging.getLogger("channelsq.interface.gateway")

#: Seconds between two looks for reply channels whose time is over.
_TICK = 1.0

#: Seconds that a client is asked to wait before it tries again.
_LATER = 5.0


class Gateway:
    """An interface server of one protocol.

    A subclass sets the class attributes, and overrides :meth:`open` and :meth:`close` for its clients, :meth:`http` for
    webhooks, and :meth:`carry` for what it sends out.  All of them run in one event loop.

    Args:
        config: the settings, of :attr:`config_class`.
        layer: the channel layer, one that other processes can see.
    """

    #: Its name: letters and digits, as in ``"sms"``.
    protocol: ClassVar[str]
    #: The command, for error texts.
    program: ClassVar[str | None] = None
    #: The channels whose messages :meth:`carry` sends out.
    consumes: ClassVar[tuple[str, ...]] = ()
    #: The channel on which the fate of these messages is published; empty for none.
    receipts: ClassVar[str] = ""
    #: Whether a message may be sent out twice if a process died with it.
    may_repeat: ClassVar[bool] = False
    #: Whether several processes may serve together on the same ports, see ``--workers``.
    serves_together: ClassVar[bool] = False
    #: The settings of each address on which it listens, the names of host and port; see :meth:`bound`.
    addresses: ClassVar[tuple[tuple[str, str], ...]] = (("host", "port"),)
    config_class: ClassVar[type[GatewayConfig]] = GatewayConfig
    options: ClassVar[Sequence[Option]] = OPTIONS

    def __init__(self, config: GatewayConfig, layer: ChannelLayerWrapper) -> None:
        self.config = config
        self.layer = layer
        #: Events by name, as in ``stats["gateway.published"]``.
        self.stats = Counters()
        #: The address of the HTTP server; empty before it listens.
        self.url = ""
        self.is_draining = False
        self._pages = GatewayPages(config, self.protocol, self.stats, self._problem, self._gauges)
        self._link = link_for(layer, self.stats)
        self._seen = Seen(layer.channel_layer, self.protocol)
        receipt = self._publish_receipt if self.receipts and config.receipts else None
        self._outbound = Outbound(
            layer.channel_layer, config, self.stats, self.carry, receipt, may_repeat=self.may_repeat
        )
        self._supervised: Supervised | None = None
        self._stops: list[Callable[[], None]] = []
        self._unknown_told = LogLimit()
        self._asked_at = float("-inf")
        self._loop: asyncio.AbstractEventLoop
        self._mailbox: Mailbox
        self._door: HttpDoor
        self._reader: ChannelReader | None = None

    # -- for subclasses to override

    async def open(self) -> None:
        """Begin to serve clients; called when the layer is connected.

        Raises:
            ConfigError: the gateway's settings cannot be used.
        """

    async def close(self) -> None:
        """Stop serving clients, and finish what was begun; called on shutdown, for at most the drain window."""

    async def release(self) -> None:
        """Release what :meth:`open` acquired; called when the last message has been sent out."""

    async def http(self, request: HttpRequest) -> HttpResponse:
        """Answer a request to the HTTP server that is not for one of its own pages.

        Raises:
            TryLater: the client gets 503 with ``Retry-After``.
            Rejected: the client gets 400.
        """
        return HttpResponse(404, b"404 Not Found\n")

    async def carry(self, channel: str, content: dict[str, Any]) -> Mapping[str, Any] | None:
        """Send out a message of one of :attr:`consumes`; return more fields of its receipt.

        Raises:
            TryLater: it was not sent, and is tried again for ``--retry-time`` seconds.
            Rejected: it cannot be sent.
            Unsure: it is not known whether it was sent.
        """
        raise NotImplementedError(f"{type(self).__name__} reads {self.consumes} and has no carry()")

    def problem(self) -> str:
        """Return why the gateway cannot serve clients now, for ``health/ready``; empty if it can."""
        return ""

    def clients(self) -> int:
        """Return the number of connected clients, without those of the HTTP server."""
        return 0

    # -- for subclasses to call

    def bound(self, host: str, port: str) -> list[socket.socket]:
        """Return sockets bound to one of :attr:`addresses`, also if several processes share it; to be called once.

        Args:
            host: the name of the setting of the host.
            port: the name of the setting of the port.

        Raises:
            ConfigError: the sockets cannot be bound.
        """
        if self._supervised is not None:
            return self._supervised.listening(self.addresses.index((host, port)))
        return bind(getattr(self.config, host), getattr(self.config, port), option=flag_of(port))

    async def publish(
        self, channel: str, content: dict[str, Any], *, answer: Answer | None = None, once: str | None = None
    ) -> bool:
        """Publish a client's message; return when the layer has it.

        Args:
            channel: the channel.
            content: the message.
            answer: called with each message that a consumer sends to the message's ``reply_channel``.
            once: the client's id of the message: if it was published before, in the last day, it is not again.

        Returns:
            whether it was published now.

        Raises:
            TryLater: the channel is full, or the broker is away; the client should send the message again.
            Rejected: the message is too large for the layer.
        """
        send = functools.partial(self._publish, channel, content, answer)
        if once is None:
            await send()
        elif not await self._seen.once(once, send):
            self.stats.count("gateway.duplicates")
            logger.info("%s: a message had been published before", channel, extra=extra("duplicate", channel))
            return False
        return True

    async def send_later(self, channel: str, content: dict[str, Any]) -> None:
        """Send a message to one of the gateway's own channels, so that any process of the gateway sends it out.

        It waits as long as a disconnect for room in the channel.

        Raises:
            TryLater: the channel is full, or the broker is away.
        """
        await self._try(channel, content, self.config.limits.disconnect_patience)

    # -- the life of the server

    def stop(self) -> None:
        """Shut down as on SIGTERM; returns at once.  Safe to call from any thread."""
        for each in list(self._stops):
            self._loop.call_soon_threadsafe(each)

    async def run(
        self,
        *,
        on_listening: Callable[[Gateway], None] | None = None,
        install_signals: bool = True,
        supervised: Supervised | None = None,
    ) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`.

        Args:
            on_listening: called in the event loop when clients can connect.
            install_signals: whether signals stop the server; only possible in the main thread.
            supervised: the data of the supervisor, if several processes serve together.

        Raises:
            ConfigError: the settings cannot be used, for example an address.
        """
        self._loop = asyncio.get_running_loop()
        stopping, forced = asyncio.Event(), asyncio.Event()
        self._supervised = supervised
        sockets = self.bound("host", "port")
        self._stops.append(stopping.set)
        with self._signals(stopping, forced) if install_signals else contextlib.nullcontext():
            heartbeat = await self._start()
            ticking = asyncio.ensure_future(self._tick())
            try:
                await self.open()
                await self._listen(sockets)
                if self._reader is not None:
                    self._reader.start()
                logger.info("clients' messages go to the channel layer %s", self.layer.described, extra=extra("layer"))
                logger.info("channelsq %s gateway listening on %s", self.protocol, self.url, extra=extra("listening"))
                if supervised is not None:
                    await self._pages.join(Peers(supervised.number, supervised.folder))
                    supervised.when_alone(self.stop)
                    supervised.say_ready()
                if on_listening is not None:
                    on_listening(self)
                await stopping.wait()
                await self._drain(forced)
            finally:
                ticking.cancel()
                for bound in sockets:
                    bound.close()
                await self._end(heartbeat)

    @contextlib.contextmanager
    def _signals(self, stopping: asyncio.Event, forced: asyncio.Event) -> Any:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int) -> None:
            if stopping.is_set() and number == signal.SIGINT:
                forced.set()
            stopping.set()

        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            self._loop.add_signal_handler(number, on_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)

    async def _start(self) -> Heartbeat | Heartbeats | None:
        """Connect to the channel layer."""
        inner, config = self.layer.channel_layer, self.config
        replies = Replies(self._loop, self.stats, self._on_unknown)
        prefix = names.process_part(inner.new_channel(f"{names.GATEWAY_SEND}!"))
        announces = {"protocol": self.protocol, "channels": list(self.consumes)}
        heartbeat = heartbeat_of(self.layer, config.limits, lambda: None, announces=announces)
        self._mailbox = Mailbox(
            replies,
            lambda: inner.new_channel(f"{names.GATEWAY_SEND}!"),
            self.stats,
            config.reply_channels,
            config.reply_lifetime,
            heartbeat,
        )
        self._door = HttpDoor(config, self.stats, self._http)
        if self.consumes:
            self._reader = ChannelReader(self.layer, self.consumes, config.sends, self._outbound.take)
            self._outbound.reader = self._reader
        await self._link.start([prefix], replies)
        if heartbeat is None:
            return None
        # Membership changes of this process's reply channels, see channelsq.layers.contract.membership_notes.
        replies.register(prefix, heartbeat)
        self._link.on_back = heartbeat.check_now
        heartbeat.start()
        return heartbeat

    async def _listen(self, sockets: Sequence[Any]) -> None:
        try:
            await self._door.listen(sockets)
        except OSError as error:
            raise ConfigError(cannot_listen(f"{self.config.host}:{self.config.port}", error, "--port")) from None
        self.url = url_of(self.config.host, sockets[0])

    async def _drain(self, forced: asyncio.Event) -> None:
        """Finish what was begun, in bounded time; less if the user insists."""
        draining = asyncio.ensure_future(self._finish())
        insisting = asyncio.ensure_future(forced.wait())
        await asyncio.wait([draining, insisting], return_when=asyncio.FIRST_COMPLETED)
        insisting.cancel()
        if not draining.done():
            draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining

    async def _finish(self) -> None:
        self.is_draining = True
        logger.info("stopping: %d messages are being sent out", len(self._outbound), extra=extra("stopping"))
        await asyncio.sleep(self.config.drain_delay)
        until = self._loop.time() + self.config.drain_window
        if self._reader is not None:
            await self._reader.cease()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await asyncio.gather(self._close(), self._door.stop())
        # Consumers answer the last messages.
        await self._wait(lambda: False, min(until, self._asked_at + self.config.limits.end_begun))
        await self._outbound.drain(max(0.0, until - self._loop.time()))
        await self._wait(
            lambda: self._mailbox.is_idle and self._link.idle, self._loop.time() + self.config.limits.end_begun
        )

    async def _close(self) -> None:
        try:
            await self.close()
        except Exception:  # of any gateway
            logger.exception("the gateway did not close", extra=extra("close_failed"))

    async def _wait(self, condition: Callable[[], bool], until: float) -> None:
        while self._loop.time() < until and not condition():
            await asyncio.sleep(0.02)

    async def _end(self, heartbeat: Heartbeat | Heartbeats | None) -> None:
        """Disconnect from the channel layer."""
        self._pages.leave()
        await self._door.stop()
        if self._reader is not None:
            await self._reader.cease()
            await self._outbound.drain(0.0)
            await self._reader.close()
        await self.release()
        if heartbeat is not None:
            await asyncio.to_thread(heartbeat.stop)
        await self._link.stop()

    # -- inside

    async def _http(self, request: HttpRequest) -> HttpResponse:
        return await self._pages.answer(request) or await self.http(request)

    async def _publish(self, channel: str, content: dict[str, Any], answer: Answer | None) -> None:
        reply_channel = None if answer is None else self._mailbox.open(answer)
        if reply_channel is not None:
            content = {**content, "reply_channel": reply_channel}
        try:
            await self._try(channel, content, self.config.publish_timeout)
        except BaseException:
            if reply_channel is not None:
                self._mailbox.drop(reply_channel)
            raise
        if reply_channel is not None:
            self._asked_at = self._loop.time()
        self.stats.count("gateway.published")

    async def _try(self, channel: str, content: dict[str, Any], patience: float) -> None:
        try:
            await self._link.published(channel, content, patience)
        except ChannelFull as error:
            raise TryLater(f"the channel {channel} is full", _LATER) from error
        except BrokerUnavailable as error:
            raise TryLater("the broker cannot be reached", _LATER) from error
        except MessageTooLarge as error:
            raise Rejected("the message is too large") from error

    async def _publish_receipt(self, receipt: dict[str, Any]) -> None:
        await self._try(self.receipts, receipt, self.config.publish_timeout)

    def _on_unknown(self, channel: str, delivery: Delivery) -> None:
        """Handle an answer whose reply channel has ended."""
        if delivery.group is not None:
            self._link.forget(channel)
        elif self._unknown_told.allows():
            logger.warning(
                "an answer came after its reply channel had ended (%d so far): send it to %s",
                self.stats["replies.unknown"],
                " or ".join(self.consumes) or "a client's next message",
                extra=extra("answer_too_late", channel),
            )

    def _problem(self) -> str:
        if self.is_draining:
            return "the server is shutting down"
        if not self._link.reachable or (self._reader is not None and not self._reader.is_connected):
            return "the broker cannot be reached"
        return self.problem()

    def _gauges(self) -> dict[str, float]:
        return {
            "connections": self._door.connections + self.clients(),
            "sending": len(self._outbound),
            "reply_channels": len(self._mailbox),
            "broker_reachable": int(self._link.reachable),
        }

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._mailbox.on_tick(self._loop.time())
