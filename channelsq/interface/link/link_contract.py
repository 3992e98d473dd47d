"""The contract of a link: publications and their results, and the removal of clients that are gone."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.replies import Replies
from channelsq.layers.contract.layer_values import Send

logger = logging.getLogger("channelsq.interface.link")

#: Clients that left while the broker was away: how often (seconds) and how many at a time are tried again, and
#: how many are remembered.
_FORGET_AGAIN, _FORGET_AT_ONCE, _MOST_UNFORGOTTEN = 1.0, 1000, 100_000


#: Seconds that a broker counts as away after a message that did not reach it.
_AWAY = 5.0


class Publisher(Protocol):
    """The publisher, which is told the result of a publication."""

    def published(self, order: int, error: Exception | None) -> None:
        """Publication ``order`` is with the broker, or it is not: ``error`` says why.  Called in the event loop."""


class Publication:
    """A message on its way.

    Submitted once more, it is the same message to its consumer, with the same id.

    Args:
        send: the prepared message.
        publisher: is told how it went; None if the result is not needed.
        order: what the publisher knows it by.
        deadline: the loop's time until which it may wait for room, or for the broker; 0 for not at all.
        waits_for_broker: whether it waits for a lost broker, too.
    """

    __slots__ = ("cancelled", "deadline", "identity", "order", "place", "publisher", "send", "size", "waits_for_broker")

    def __init__(
        self,
        send: Send,
        publisher: Publisher | None = None,
        order: int = 0,
        deadline: float = 0.0,
        *,
        waits_for_broker: bool = True,
    ) -> None:
        self.send = send
        self.publisher = publisher
        self.order = order
        self.deadline = deadline
        self.waits_for_broker = waits_for_broker
        #: Set when it is not to be sent any more, if it still waits: the client has left.
        self.cancelled = False
        #: Its message id, once it has been sent.
        self.identity: str | None = None
        #: The server that it went to last, among those of the layer.
        self.place = 0
        #: Bytes that it takes while it is under way.
        self.size = len(send.body)

    def tell(self, error: Exception | None) -> None:
        """Tell the publisher, if there is one."""
        if self.publisher is not None:
            self.publisher.published(self.order, error)


class _Awaited:
    """A publisher that is a future."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def published(self, order: int, error: Exception | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)


class Link(ABC):
    """Publishes for one interface process and listens for its replies; used in one event loop.

    Args:
        layer: the channel layer.
        stats: where failures are counted.
    """

    def __init__(self, layer: ChannelLayerWrapper, stats: Counters) -> None:
        self.layer = layer
        self._stats = stats
        self._loop: asyncio.AbstractEventLoop
        #: Called in the event loop when the broker may have been away, and is there.  Not every link can tell.
        self.on_back: Callable[[], None] | None = None
        self._unforgotten: deque[str] = deque()
        #: When (by the monotonic clock) the last attempt found no broker.
        self._failed_at = float("-inf")

    async def start(self, prefixes: list[str], replies: Replies) -> None:
        """Hand what is sent to ``prefixes`` (as ``"name.<process>!"``) to ``replies``, and be ready to publish.

        A broker that is away is no error: it is tried again until it is there.
        """
        self._loop = asyncio.get_running_loop()
        await self._start(prefixes, replies)

    async def stop(self) -> None:
        """Stop listening and publishing; what still waits to be published is given up."""
        left = len(self._unforgotten) + await self._stop()
        self._unforgotten.clear()
        if left:
            logger.error("%d messages were not published before the end", left, extra=extra("publications_lost"))

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Return whether no message waits and every publisher has been told its result."""

    @property
    def reachable(self) -> bool:
        """Return whether the broker answers, as far as this process knows.

        A link without a connection of its own only knows what became of messages: one that failed makes the broker
        count as away for a while.  Not until one succeeds, as none may come while it does.
        """
        return time.monotonic() - self._failed_at > _AWAY

    @abstractmethod
    def submit(self, publication: Publication) -> None:
        """Publish; its publisher is told later."""

    @abstractmethod
    def _forget(self, channel: str) -> None:
        """Take a channel out of every group and call :meth:`_forgotten`."""

    @abstractmethod
    async def _start(self, prefixes: list[str], replies: Replies) -> None: ...

    @abstractmethod
    async def _stop(self) -> int:
        """Return the number of abandoned publications."""

    def is_lost(self, publication: Publication) -> bool:
        """Return whether a publication that its server took is given up, because that server has been away for long."""
        return False

    def publish(self, send: Send) -> None:
        """Send what ``layer.prepare`` made; a failure is counted and logged."""
        self.submit(Publication(send))

    async def published(self, channel: str, message: dict[str, Any], patience: float = 0.0) -> None:
        """Send ``message`` to ``channel`` and wait until the layer has it.

        Args:
            channel: its name.
            message: the content.
            patience: seconds for which it may wait for room.

        Raises:
            MessageTooLarge: it is over the layer's ``message_size_limit``.
            ChannelFull, BrokerUnavailable: it was not sent; a lost broker may have it all the same.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        deadline = self._loop.time() + patience if patience else 0.0
        send = self.layer.prepare(channel, message)
        publication = Publication(send, _Awaited(future), 0, deadline, waits_for_broker=False)
        self.submit(publication)
        try:
            await future
        except asyncio.CancelledError:  # the client has left
            publication.cancelled = True
            raise

    # -- clients that have left -------------------------------------------------------------

    def forget(self, channel: str) -> None:
        """Take a client's channel out of every group, after what was published before.

        Tried again until the broker has heard of it: no other process ends these memberships.
        """
        self._forget(channel)

    def _forgotten(self, channel: str, error: Exception | None) -> None:
        if not isinstance(error, (ChannelFull, BrokerUnavailable)):
            return
        if len(self._unforgotten) >= _MOST_UNFORGOTTEN:
            self._stats.count("link.unforgotten")
            return
        self._unforgotten.append(channel)
        if len(self._unforgotten) == 1:
            self._loop.call_later(_FORGET_AGAIN, self._forget_again)

    def _forget_again(self) -> None:
        # Not all at once, which would leave no room for what clients send.
        again = [self._unforgotten.popleft() for _ in range(min(_FORGET_AT_ONCE, len(self._unforgotten)))]
        if self._unforgotten:
            self._loop.call_later(_FORGET_AGAIN, self._forget_again)
        for channel in again:
            self._forget(channel)

    # -- failures ---------------------------------------------------------------------------

    def _attempt(self, call: Callable[[], None], target: str, *, quiet: bool) -> Exception | None:
        """Call what may fail; gives the failure, which is counted."""
        try:
            call()
        except Exception as error:
            self._failed(error, target, quiet=quiet)
            return error
        return None

    def _failed(self, error: Exception, target: str, *, quiet: bool) -> None:
        """Count a failure, and log it unless somebody is told of it."""
        if isinstance(error, BrokerUnavailable):
            self._failed_at = time.monotonic()
        self._note(error, target, quiet=quiet)

    def _note(self, error: Exception, target: str, *, quiet: bool) -> None:
        """Count what went wrong, and log it unless somebody is told of it."""
        if isinstance(error, (ChannelFull, BrokerUnavailable)):
            self._stats.count("link.full" if isinstance(error, ChannelFull) else "link.unavailable")
            if not quiet:
                logger.warning("%s: not sent: %s", target, error, extra=extra("not_sent", target))
            return
        # A fault in a layer must not end what every client depends on.
        self._stats.count("link.errors")
        logger.error("%s: the channel layer failed", target, exc_info=error, extra=extra("layer_failed", target))
