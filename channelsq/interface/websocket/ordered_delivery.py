"""The ordered delivery of a socket's messages to workers, one at a time, with retries and timeouts."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol

from channelsq.core import names
from channelsq.exceptions import MessageTooLarge
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.link import Publication, Publisher
from channelsq.interface.websocket.connection_state import Action, Connection, Content
from channelsq.interface.websocket.packing import FramePacker
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.wire.wire_forms import TIMED_KEY

logger = logging.getLogger("channelsq.interface.ordered_delivery")


#: Seconds before the first retry of a publication.
_FIRST_WAIT = 0.05


class Client(Protocol):
    """The interface of the client whose messages are delivered."""

    def answer(self, status: int, cause: str, reason: str, *, retry_after: int | None = None) -> None:
        """Answer the handshake with an error."""

    def fail(self, code: int, reason: str) -> None:
        """Close because of an error of the client."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake."""

    def act(self, actions: list[Action]) -> None:
        """Carry out the actions of the connection."""

    def progress(self) -> None:
        """Publish the next message, and read as far as there is room."""


class OrderedDelivery:
    """The delivery of a socket's messages: each is published after the previous one is reported done.

    Args:
        context: the state that all connections share.
        connection: the socket's state, which keeps the order.
        client: the owner of the socket.
        target: the socket's URL, for the log.
    """

    def __init__(self, context: ServerContext, connection: Connection, client: Client, target: str) -> None:
        self._context = context
        self._connection = connection
        self._client = client
        self._target = target
        self._layer = context.layer.channel_layer
        #: Answers messages that need no worker; None for a socket without any.
        self._joins = context.page_joins if context.page_joins.are_for(connection.path) else None
        #: Created for the first frame, which comes after a connect that could be packed.
        self._packer: FramePacker | None = None
        #: The time at which the worker of the last message is overdue.
        self._overdue = math.inf
        #: The last publication that is not done.
        self._publication: Publication | None = None
        #: The timer of the next retry.
        self._timer: asyncio.TimerHandle | None = None
        self._wait = 0.0
        #: The time of the publication, if it is measured.
        self._handed_out = 0.0
        #: Whether the broker has the disconnect.
        self.is_disconnect_published = False

    def hand_out(self) -> None:
        """Publish the next message, unless another one is in flight."""
        message = self._connection.take_bare()
        if message is not None:
            self.publish(*message)

    def publish(self, channel: str, content: Content, order: int) -> None:
        """Publish the message that is in flight from now on."""
        context = self._context
        self._overdue = math.inf
        if self._joins is not None:
            replies, socket = context.replies, self._connection.reply_channel
            if self._joins.answer(replies, socket, content, order):
                self._publication = None
                return
        try:
            if isinstance(content, dict) or not context.packs_alone:
                message = self._connection.message(content, order)
                if context.measures is not None:
                    message = {TIMED_KEY: True, **message}
                send = context.prepare(channel, message)
            else:
                packer = self._packer or self._new_packer()
                body = packer.pack(content, order, self._layer.message_size_limit)
                send = Send(channel, body, False, 0.0, None, None, self._connection.reply_channel)
        except (MessageTooLarge, TypeError) as error:
            self._connection.lost()
            if order == 0:
                self._client.answer(431, "too_large", f"its headers do not fit in a message: {error}")
            else:
                context.stats.count("websocket.too_big")
                logger.info("%s: closed: %s", self._target, error, extra=self._extra("message_too_big"))
                self._client.fail(1009, "message too big")
                self._client.progress()
            return
        now = context.loop.time()
        deadline = now + (self._patience(channel) if order else context.room_patience)
        self._wait = _FIRST_WAIT
        publisher: Publisher = self
        if context.measures is not None:
            self._handed_out = now
            publisher = context.measures.timed(self, channel)
        self._publication = publication = Publication(send, publisher, order, deadline, waits_for_broker=order > 0)
        context.link.submit(publication)

    def _new_packer(self) -> FramePacker:
        connection = self._connection
        timed = self._context.measures is not None
        packer = self._packer = FramePacker(
            connection.reply_channel, connection.path, connection.root_path, timed=timed
        )
        return packer

    def _patience(self, channel: str) -> float:
        """Return the seconds for which a full channel or a lost broker may delay a message, as backpressure."""
        limits = self._context.limits
        return limits.disconnect_patience if channel == names.WEBSOCKET_DISCONNECT else limits.publish_patience

    def _extra(self, action: str) -> dict[str, str]:
        return extra(action, self._connection.reply_channel)

    def published(self, order: int, error: Exception | None) -> None:
        """See :class:`channelsq.interface.link.Publisher`."""
        publication = self._publication
        if self._connection.in_flight != order or publication is None:
            return  # reported done before its publication
        now = self._context.loop.time()
        if error is None or (order == 0 and self._connection.answered):
            self.is_disconnect_published = publication.send.target == names.WEBSOCKET_DISCONNECT
            self._overdue = now + self._context.config.order_timeout
        elif order == 0:
            self._connection.lost()
            self._client.answer(503, "unavailable", f"no worker can be told: {error}", retry_after=1)
            self._client.progress()
        elif now < publication.deadline:
            self._timer = self._context.loop.call_later(self._wait, self._publish_again)
            self._wait = min(1.0, self._wait * 1.5)
        else:
            self._give_up(publication, error)

    def _publish_again(self) -> None:
        self._timer = None
        if self._publication is not None and self._connection.in_flight == self._publication.order:
            self._context.link.submit(self._publication)

    def _give_up(self, publication: Publication, error: Exception) -> None:
        target = publication.send.target
        self._connection.lost()
        self._context.stats.count("websocket.lost_messages")
        logger.error(
            "%s: message %d to %s was given up after %.0f s: %s",
            self._target,
            publication.order,
            target,
            self._patience(target),
            error,
            extra=self._extra("message_lost"),
        )
        self._client.close(1013, "the server is overloaded")
        self._client.progress()

    def note_done(self, order: object, took: object = None) -> None:
        """Measure the time of message ``order``, which the application reports done, if it is awaited.

        Args:
            took: the seconds of its consumer, if the report has them.
        """
        measures, publication = self._context.measures, self._publication
        if (
            measures is not None
            and publication is not None
            and order == publication.order == self._connection.in_flight
        ):
            measures.reply[publication.send.target].observe(self._context.loop.time() - self._handed_out)
            if type(took) is float and took >= 0:
                measures.consumer[publication.send.target].observe(took)

    def on_tick(self, now: float) -> None:
        """Continue without a report that is overdue."""
        order = self._connection.in_flight
        if order is None:
            return
        publication, link = self._publication, self._context.link
        is_lost = publication is not None and order > 0 and self._overdue < math.inf and link.is_lost(publication)
        if now < self._overdue and not is_lost:
            if self._publication is not None and self._overdue < math.inf:
                self._context.unconsumed.waits(
                    self._publication.send.target, self._overdue - self._context.config.order_timeout, now
                )
            return
        self._overdue = math.inf
        self._context.stats.count("websocket.overdue")
        if is_lost:
            logger.warning(
                "%s: message %d is given up, as its server is away; the next message is published without it",
                self._target,
                order,
                extra=self._extra("order_timeout"),
            )
        else:
            logger.warning(
                "%s: no worker reported message %d done within %g s; the next message is published without it",
                self._target,
                order,
                self._context.config.order_timeout,
                extra=self._extra("order_timeout"),
            )
        self._client.act(self._connection.done(order))
        self._client.progress()

    def publish_rest(self) -> None:
        """Publish all remaining messages without waiting."""
        connection = self._connection
        if self._timer is not None and self._publication is not None:
            self._timer.cancel()
            self._timer = None
            self._context.link.submit(self._publication)
        if connection.in_flight is not None:
            connection.done(connection.in_flight)
        while (message := connection.take()) is not None:
            self._context.link.publish(self._context.prepare(message.channel, message.content))
            connection.done(message.order)
