"""The record of clients' messages that were published, so that a repeated one is published once.

The layer keeps the record for a day: in the Redis of the groups, or in the site's file.  Memory of this process serves
layers without such a record, and messages that are being published.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.gateway.outcomes import TryLater
from channelsq.layers.contract.layer_contract import BaseChannelLayer

#: The most messages that a process remembers itself, and for how many seconds.
MOST, KEPT = 10_000, 86_400.0


class Seen:
    """The record of one gateway.

    Args:
        layer: keeps the record if it can.
        protocol: the gateway's protocol, so that the ids of two gateways do not meet.
        most: the most messages that this process remembers, if the layer does not.
    """

    def __init__(self, layer: BaseChannelLayer, protocol: str, most: int = MOST) -> None:
        self._layer = layer
        self._protocol = protocol
        self._most = most
        self._own: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        """Return how many messages this process itself remembers."""
        return len(self._own)

    async def once(self, key: str, publish: Callable[[], Awaitable[None]]) -> bool:
        """Publish a message unless it was published before; return whether it was published now.

        A process that is killed between the publication and the record may have it published twice, never lost.

        Args:
            key: the client's id of the message, of any length.
            publish: publishes it.

        Raises:
            TryLater: the record does not answer.
            Exception: those of ``publish``; the message then counts as not published.
        """
        mark = f"{self._protocol}:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
        while (other := self._under_way.get(mark)) is not None:
            await asyncio.wait([other])
        done = self._under_way[mark] = asyncio.get_running_loop().create_future()
        try:
            if await self._has(mark):
                return False
            await publish()
            await self._add(mark)
            return True
        finally:
            del self._under_way[mark]
            done.set_result(None)

    async def _has(self, mark: str) -> bool:
        if self._own.get(mark, 0.0) > time.monotonic():
            return True
        try:
            return bool(await asyncio.to_thread(self._layer.has_begun, mark))
        except BrokerUnavailable as error:
            raise TryLater(str(error)) from error

    async def _add(self, mark: str) -> None:
        try:
            if await asyncio.to_thread(self._layer.begin, mark) is not None:
                return
        except BrokerUnavailable:
            pass  # the message is published, so this process remembers it
        self._own.pop(mark, None)
        self._own[mark] = time.monotonic() + KEPT
        if len(self._own) > self._most:
            del self._own[next(iter(self._own))]
