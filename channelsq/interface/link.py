"""From the interface to the channel layer: the only place that calls what may block.

What is published goes through one thread, so it stays in order and never holds up the event loop.  The
in-memory layer never waits for anything, so it is called at once, without a thread between.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.logs import extra
from channelsq.interface.stats import Stats
from channelsq.layers.base import Deliver, Listener, Send
from channelsq.layers.memory import InMemoryChannelLayer

logger = logging.getLogger("channelsq.interface.link")

#: Told in the event loop how a publication went: None, or what went wrong.
Outcome = Callable[[Exception | None], None]

_Job = tuple[Callable[[], None], str, Outcome | None]

#: Clients that left while the broker was away: how often (seconds) and how many at a time are tried again, and
#: how many are remembered.
_FORGET_AGAIN, _FORGET_AT_ONCE, _MOST_UNFORGOTTEN = 1.0, 1000, 100_000


class Link:
    """Publishes for one interface process and listens for its replies.

    Args:
        layer: the channel layer.
        stats: where failures are counted.
        limit: how many publications may wait; more are refused with ChannelFull.
    """

    def __init__(self, layer: ChannelLayerWrapper, stats: Stats, limit: int = 10_000) -> None:
        self.layer = layer
        self._stats = stats
        self._limit = limit
        self._direct = isinstance(layer.channel_layer, InMemoryChannelLayer)
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._listeners: list[Listener] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outcomes: deque[tuple[Outcome, Exception | None]] = deque()
        self._unforgotten: deque[str] = deque()

    def start(self, loop: asyncio.AbstractEventLoop, prefixes: list[str], deliver: Deliver) -> None:
        """Listen on ``prefixes`` (as ``"name.<process>!"``) and be ready to publish.  May block."""
        self._loop = loop
        if not self._direct:
            self._thread = threading.Thread(target=self._run, name="channelsq-publish", daemon=True)
            self._thread.start()
        channel_layer = self.layer.channel_layer
        for prefix in prefixes:
            self._listeners.append(channel_layer.listen(prefix, deliver))

    def stop(self) -> None:
        """Stop listening and publishing; what still waits to be published is given up.  May block."""
        # Side by side and not for ever: a listener may be in the middle of reaching a lost broker.
        stoppers = [threading.Thread(target=listener.stop, daemon=True) for listener in self._listeners]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(1)
        self._listeners.clear()
        with self._changed:
            self._stopping = True
            left = len(self._jobs) + len(self._unforgotten)
            self._unforgotten.clear()
            self._jobs.clear()
            self._changed.notify_all()
        if left:
            logger.error("%d messages were not published before the end", left, extra=extra("publications_lost"))
        if self._thread is not None:
            self._thread.join(1)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be published and every outcome has been told."""
        with self._changed:
            return not self._jobs and not self._busy and not self._outcomes

    # -- in the event loop ------------------------------------------------------------------

    def publish(self, send: Send, outcome: Outcome | None = None) -> None:
        """Send what ``layer.prepare`` made; ``outcome`` is called later, in the event loop."""
        self._submit(lambda: self.layer.dispatch((send,)), send.target, outcome)

    def forget(self, channel: str) -> None:
        """Take a client's channel out of every group, after what was published before.

        Tried again until the broker has heard of it: nobody else would end these memberships.
        """

        def outcome(error: Exception | None) -> None:
            if isinstance(error, (ChannelFull, BrokerUnavailable)):
                self._forget_later(channel)

        self._submit(lambda: self.layer.channel_layer.forget_channel(channel), channel, outcome)

    def _forget_later(self, channel: str) -> None:
        assert self._loop is not None
        if len(self._unforgotten) >= _MOST_UNFORGOTTEN:
            self._stats.count("link.unforgotten")
            return
        self._unforgotten.append(channel)
        if len(self._unforgotten) == 1:
            self._loop.call_later(_FORGET_AGAIN, self._forget_again)

    def _forget_again(self) -> None:
        assert self._loop is not None
        # Not all at once, which would leave no room for what clients send.
        again = [self._unforgotten.popleft() for _ in range(min(_FORGET_AT_ONCE, len(self._unforgotten)))]
        if self._unforgotten:
            self._loop.call_later(_FORGET_AGAIN, self._forget_again)
        for channel in again:
            self.forget(channel)

    async def published(self, channel: str, message: dict[str, Any]) -> None:
        """Send ``message`` to ``channel`` and wait until the layer has it.

        Raises:
            MessageTooLarge: it is over the layer's ``message_size_limit``.
            ChannelFull, BrokerUnavailable: it was not sent.
        """
        assert self._loop is not None
        future: asyncio.Future[None] = self._loop.create_future()

        def outcome(error: Exception | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        self.publish(self.layer.prepare(channel, message), outcome)
        await future

    def _submit(self, call: Callable[[], None], target: str, outcome: Outcome | None) -> None:
        assert self._loop is not None
        if self._direct:
            error = self._attempt(call, target, quiet=outcome is not None)
            if outcome is not None:
                self._loop.call_soon(outcome, error)
            return
        with self._changed:
            if not self._stopping and len(self._jobs) < self._limit:
                self._jobs.append((call, target, outcome))
                self._changed.notify()
                return
        self._stats.count("link.refused")
        if outcome is not None:
            self._loop.call_soon(outcome, ChannelFull(target, self._limit))

    # -- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                while not self._jobs and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                self._busy = True
                batch = list(self._jobs)
                self._jobs.clear()
            self._work(batch)

    def _work(self, batch: list[_Job]) -> None:
        lost: BrokerUnavailable | None = None
        for call, target, outcome in batch:
            # Each attempt at a lost broker takes seconds: whoever waited through one is told its answer.
            error = lost or self._attempt(call, target, quiet=outcome is not None)
            if isinstance(error, BrokerUnavailable):
                lost = error
            if outcome is not None:
                self._tell(outcome, error)

    def _attempt(self, call: Callable[[], None], target: str, *, quiet: bool) -> Exception | None:
        try:
            call()
        except (ChannelFull, BrokerUnavailable) as error:
            self._stats.count("link.full" if isinstance(error, ChannelFull) else "link.unavailable")
            if not quiet:
                logger.warning("%s: not sent: %s", target, error, extra=extra("not_sent", target))
            return error
        except Exception as error:
            # A fault in a layer must not end the thread that every client depends on.
            self._stats.count("link.errors")
            logger.exception("%s: the channel layer failed", target, extra=extra("layer_failed", target))
            return error
        return None

    def _tell(self, outcome: Outcome, error: Exception | None) -> None:
        assert self._loop is not None
        with self._changed:
            self._outcomes.append((outcome, error))
            if len(self._outcomes) > 1:
                return
        try:
            self._loop.call_soon_threadsafe(self._tell_all)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            with self._changed:
                self._outcomes.clear()

    def _tell_all(self) -> None:
        with self._changed:
            outcomes = list(self._outcomes)
            self._outcomes.clear()
        for outcome, error in outcomes:
            outcome(error)
