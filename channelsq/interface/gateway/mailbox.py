"""The reply channels of a gateway: each belongs to one message of a client, and lives for a limited time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from channelsq.core.logs import LogLimit
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.replies import Delivery, Replies
from channelsq.interface.presence.heartbeat import Heartbeat
from channelsq.interface.presence.heartbeats import Heartbeats

logger = logging.getLogger("channelsq.interface.gateway")

#: Handles the content of one answer of the application.
Answer = Callable[[dict[str, Any]], Awaitable[None]]

#: The most answers that are handled at once; more are dropped.
MOST_ANSWERS = 1000


class Mailbox:
    """The reply channels of one process.

    Args:
        replies: hands out what the application sends.
        new_channel: returns the name of a new reply channel.
        stats: the server's counters.
        limit: the most channels; the oldest are removed first.
        lifetime: seconds after which a channel is removed.
        presence: learns which channels are open; None if the layer has no place for heartbeats.
    """

    def __init__(
        self,
        replies: Replies,
        new_channel: Callable[[], str],
        stats: Counters,
        limit: int,
        lifetime: float,
        presence: Heartbeat | Heartbeats | None = None,
    ) -> None:
        self._replies = replies
        self._new_channel = new_channel
        self._stats = stats
        self._limit = limit
        self._lifetime = lifetime
        self._presence = presence
        self._ends: dict[str, float] = {}  # the oldest first
        self._running: set[asyncio.Task[None]] = set()
        self._losses = LogLimit()

    def __len__(self) -> int:
        """Return the number of channels."""
        return len(self._ends)

    @property
    def is_idle(self) -> bool:
        """True if no answer is being handled."""
        return not self._running

    def open(self, answer: Answer) -> str:
        """Return a new reply channel.

        Args:
            answer: handles each message that is sent to it.
        """
        channel = self._new_channel()
        if len(self._ends) >= self._limit:
            self._stats.count("gateway.reply_channels_dropped")
            self._close(next(iter(self._ends)))
        self._ends[channel] = asyncio.get_running_loop().time() + self._lifetime
        self._replies.register(channel, _Box(self, channel, answer))
        if self._presence is not None:
            self._presence.opened(channel, "")
        return channel

    def drop(self, channel: str) -> None:
        """Remove a channel whose message was not published."""
        if channel in self._ends:
            self._close(channel)

    def on_tick(self, now: float) -> None:
        """Remove the channels whose time is over."""
        while self._ends:
            oldest, end = next(iter(self._ends.items()))
            if end > now:
                return
            self._close(oldest)

    def _close(self, channel: str) -> None:
        del self._ends[channel]
        self._replies.unregister(channel)
        if self._presence is not None:
            self._presence.closed(channel)

    def take(self, channel: str, answer: Answer, message: dict[str, Any]) -> None:
        """Handle an answer, in a task of its own."""
        if len(self._running) >= MOST_ANSWERS:
            self._stats.count("gateway.answers_dropped")
            if self._losses.allows():
                logger.error(
                    "an answer was dropped: %d answers are being handled (%d dropped so far)",
                    MOST_ANSWERS,
                    self._stats["gateway.answers_dropped"],
                    extra=extra("answer_dropped", channel),
                )
            return
        task = asyncio.ensure_future(self._handle(channel, answer, message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, channel: str, answer: Answer, message: dict[str, Any]) -> None:
        try:
            await answer(message)
        except Exception as error:  # of any gateway
            self._stats.count("gateway.answers_failed")
            logger.error("an answer was not sent: %s", error, extra=extra("answer_failed", channel))


class _Box:
    """One reply channel; see :class:`channelsq.interface.link.replies.Receiver`."""

    __slots__ = ("_answer", "_channel", "_mailbox")

    def __init__(self, mailbox: Mailbox, channel: str, answer: Answer) -> None:
        self._mailbox = mailbox
        self._channel = channel
        self._answer = answer

    def on_reply(self, delivery: Delivery) -> None:
        """Handle a message of the application."""
        self._mailbox.take(self._channel, self._answer, delivery.message)

    def on_done(self, order: int) -> None:
        """Do nothing: a gateway's messages have no order."""
