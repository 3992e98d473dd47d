"""The methods of a channel layer for callers in an event loop."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from channelsq.layers.contract.layer_values import Send


class AsyncCalls(ABC):
    """Awaitable forms of a layer's methods; each runs the method in a thread."""

    @abstractmethod
    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        """Check and pack a message."""

    @abstractmethod
    def prepare_group(self, group: str, message: dict[str, Any]) -> Send:
        """Check and pack a message for a group."""

    @abstractmethod
    def dispatch(self, sends: Sequence[Send]) -> None:
        """Send prepared messages."""

    @abstractmethod
    def group_add(self, group: str, channel: str) -> None:
        """Add a member."""

    @abstractmethod
    def group_discard(self, group: str, channel: str) -> None:
        """Remove a member."""

    async def asend(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> None:
        """Run :meth:`send` without blocking the event loop."""
        await asyncio.to_thread(self.dispatch, (self.prepare(channel, message, delay=delay),))

    async def asend_group(self, group: str, message: dict[str, Any]) -> None:
        """Run :meth:`send_group` without blocking the event loop."""
        await asyncio.to_thread(self.dispatch, (self.prepare_group(group, message),))

    async def agroup_add(self, group: str, channel: str) -> None:
        """Run :meth:`group_add` without blocking the event loop."""
        await asyncio.to_thread(self.group_add, group, channel)

    async def agroup_discard(self, group: str, channel: str) -> None:
        """Run :meth:`group_discard` without blocking the event loop."""
        await asyncio.to_thread(self.group_discard, group, channel)
