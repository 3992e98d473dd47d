"""The messages that a gateway sends out: their rate, their attempts, and the receipts of their fate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from channelsq.exceptions import BrokerUnavailable, ChannelsqError
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.gateway.channel_reader import ChannelReader, Taken
from channelsq.interface.gateway.gateway_config import GatewayConfig
from channelsq.interface.gateway.outcomes import Rejected, TryLater, Unsure
from channelsq.layers.contract.layer_contract import BaseChannelLayer

logger = logging.getLogger("channelsq.interface.gateway")

#: Sends one message to the other side: channel and content in, more fields of the receipt out.
Carry = Callable[[str, dict[str, Any]], Awaitable[Mapping[str, Any] | None]]

#: Publishes a receipt.
Receipt = Callable[[dict[str, Any]], Awaitable[None]]

#: Seconds before the second attempt, and at most between two attempts.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

#: The longest ``reference`` that a receipt repeats.
_REFERENCE = 200

#: The most messages that were sent and are remembered, as the broker may deliver them once more.
_MOST_FINISHED = 1000

_NO_RESULT = "the process that sent it ended before it knew the result"


class Rate:
    """A limit on messages a second: one at a time, without bursts.

    Args:
        limit: messages a second; 0 for no limit.
    """

    def __init__(self, limit: float) -> None:
        self._gap = 1.0 / limit if limit else 0.0
        self._next = 0.0

    def pause(self, now: float) -> float:
        """Return the seconds until the next message may leave, and count it as left then."""
        at = max(now, self._next)
        self._next = at + self._gap
        return at - now


class Outbound:
    """Sends out what the application sends to the gateway's channels.

    Args:
        layer: the layer; it keeps marks of messages that are being sent.
        config: the gateway's settings.
        stats: the server's counters.
        carry: sends one message to the other side.
        receipt: publishes a receipt; None without receipts.
        may_repeat: whether a message may be sent again when it is not known whether it was sent.
    """

    def __init__(
        self,
        layer: BaseChannelLayer,
        config: GatewayConfig,
        stats: Counters,
        carry: Carry,
        receipt: Receipt | None,
        *,
        may_repeat: bool,
    ) -> None:
        self._layer = layer
        self._retry_time = config.retry_time
        self._stats = stats
        self._carry = carry
        self._receipt = receipt
        self._may_repeat = may_repeat
        self._rate = Rate(config.rate)
        self._running: set[asyncio.Task[None]] = set()
        #: The last delivery of each message that is being sent; a lost connection makes the broker deliver it again.
        self._deliveries: dict[str, Taken] = {}
        self._finished: dict[str, None] = {}
        self._stopping = asyncio.Event()
        self.reader: ChannelReader

    def __len__(self) -> int:
        """Return the number of messages that are being sent."""
        return len(self._running)

    def take(self, taken: Taken) -> None:
        """Send a message, in a task of its own."""
        if taken.id in self._finished:
            self.reader.settle(taken)
            return
        is_running = taken.id in self._deliveries
        self._deliveries[taken.id] = taken
        if is_running:
            return
        task = asyncio.ensure_future(self._run(taken))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self, seconds: float) -> None:
        """Finish what was begun within so many seconds; give everything else back."""
        self._stopping.set()
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _run(self, taken: Taken) -> None:
        try:
            await self._try_until_done(taken)
        except Exception:  # a fault of the gateway must not make the message come back again and again
            logger.exception("a message could not be handled", extra=extra("send_failed", taken.channel))
            self._settle(taken.id)
        finally:
            self._deliveries.pop(taken.id, None)

    def _settle(self, message_id: str) -> None:
        self._finished[message_id] = None
        if len(self._finished) > _MOST_FINISHED:
            del self._finished[next(iter(self._finished))]
        self.reader.settle(self._deliveries.pop(message_id))

    async def _try_until_done(self, taken: Taken) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._retry_time
        pause = _FIRST_PAUSE
        wait = self._rate.pause(loop.time())
        while True:
            if await self._stops_within(wait):
                self._leave(self._deliveries.pop(taken.id))
                return
            try:
                fields = await self._attempt(taken)
            except TryLater as error:
                self._stats.count("gateway.sends_repeated")
                wait = pause if error.after is None else min(error.after, _LONGEST_PAUSE)
                pause = min(pause * 2, _LONGEST_PAUSE)
                if loop.time() + wait > give_up_at:
                    await self._end(
                        taken, "failed", {"reason": f"given up after {self._retry_time:g} s: {error.reason}"}
                    )
                    return
                logger.info("%s: tried again in %.1f s: %s", taken.channel, wait, error, extra=extra("send_repeated"))
            except Rejected as error:
                await self._end(taken, "failed", {"reason": error.reason, "code": error.code})
                return
            except Unsure as error:
                await self._end(taken, "unknown", {"reason": error.reason})
                return
            else:
                await self._end(taken, "sent", fields or {})
                return

    async def _stops_within(self, seconds: float) -> bool:
        """Wait; return True as soon as the process stops."""
        if not seconds:
            return self._stopping.is_set()
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _leave(self, taken: Taken) -> None:
        if self.reader.is_lost(taken):
            self.reader.abandon(taken)
        else:
            self.reader.give_back(taken)

    async def _attempt(self, taken: Taken) -> Mapping[str, Any] | None:
        """Send a message once.

        A mark says that an attempt has begun: another process that gets the message of a killed one does not send it.
        """
        mark = self._mark(taken)
        if mark is not None:
            try:
                begun = await asyncio.to_thread(self._layer.begin, mark)
            except BrokerUnavailable as error:
                raise TryLater(str(error)) from error
            if begun is False:
                raise Unsure(_NO_RESULT)
        try:
            return await self._carry(taken.channel, taken.content)
        except (TryLater, Rejected):
            if mark is not None:
                await self._unmark(mark, at_once=True)
            raise

    def _mark(self, taken: Taken) -> str | None:
        return None if self._may_repeat else f"send:{taken.id}"

    async def _unmark(self, mark: str, *, at_once: bool) -> None:
        try:
            await asyncio.to_thread(lambda: self._layer.end(mark, at_once=at_once))
        except BrokerUnavailable as error:  # the next attempt will report an unknown fate
            logger.warning("a mark was not deleted: %s", error, extra=extra("mark_left"))

    async def _end(self, taken: Taken, status: str, fields: Mapping[str, Any]) -> None:
        """Report the fate of a message, and acknowledge it."""
        self._stats.count(f"gateway.sends_{status}")
        reason = fields.get("reason", "")
        if status != "sent":
            logger.error("%s: a message is %s: %s", taken.channel, status, reason, extra=extra(f"send_{status}"))
        if self._receipt is not None:
            reference = taken.content.get("reference", "")
            receipt = {"status": status, "reason": "", "code": "", **fields, "message": taken.id}
            receipt["reference"] = reference[:_REFERENCE] if isinstance(reference, str) else ""
            try:
                await self._receipt(receipt)
            except ChannelsqError as error:
                self._stats.count("gateway.receipts_lost")
                logger.error("%s: no receipt: %s", taken.channel, error, extra=extra("receipt_lost"))
        self._settle(taken.id)
        mark = self._mark(taken)
        if mark is not None:
            await self._unmark(mark, at_once=False)
