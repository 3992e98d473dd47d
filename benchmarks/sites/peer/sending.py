"""The sends of a separate process: the peer's side of :mod:`benchmarks.sender`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer  # type: ignore[import-untyped]

from benchmarks.sites.common import SINK

MESSAGE = {"type": "fan.out", "text": "x" * 64}


class Sending:
    """The sends over one layer, in one event loop that stays, so that connections are kept."""

    def __init__(self, alias: str) -> None:
        self.layer = get_channel_layer(alias)
        self.runner = asyncio.Runner()

    def group(self, group: str, text: str) -> None:
        """Send to a group."""
        self.runner.run(self.layer.group_send(group, {"type": "fan.out", "text": text}))

    def make_groups(self, names: list[str]) -> None:
        """Create groups of one member, which has no reader."""

        async def make() -> None:
            for name in names:
                await self.layer.group_add(name, SINK)

        self.runner.run(make())

    def rate(self, kind: str, seconds: float, target: str) -> dict[str, Any]:
        """Send for ``seconds``: ``kind`` is ``channel`` or ``group``, or one of them with ``-sync`` after it.

        ``-sync`` is one ``async_to_sync`` for each send, as in synchronous code: a Celery task, a view.
        """
        send = self.layer.send if kind.startswith("channel") else self.layer.group_send
        if kind.endswith("-sync"):
            return self._sync(async_to_sync(send), seconds, target)
        return self.runner.run(self._async(send, seconds, target))

    def _sync(self, send: Any, seconds: float, target: str) -> dict[str, Any]:
        sent, begin = 0, time.perf_counter()
        end = begin + seconds
        while time.perf_counter() < end:
            send(target, MESSAGE)
            sent += 1
        return {"sent": sent, "seconds": time.perf_counter() - begin}

    async def _async(self, send: Any, seconds: float, target: str) -> dict[str, Any]:
        sent, begin = 0, time.perf_counter()
        end = begin + seconds
        while time.perf_counter() < end:
            await send(target, MESSAGE)
            sent += 1
        return {"sent": sent, "seconds": time.perf_counter() - begin}
