"""Received messages that wait for the program."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from channelsq.client.client_errors import ClientClosed

logger = logging.getLogger("channelsq.client")


class Inbox:
    """Received messages that were not read; the oldest is dropped when there are too many.

    Args:
        size: the most messages.
        name: for the log.
    """

    def __init__(self, size: int, name: str) -> None:
        self._messages: deque[Any] = deque()
        self._size = size
        self._name = name
        self._changed = asyncio.Event()
        self._error: ClientClosed | None = None
        self.dropped = 0

    def add(self, message: Any) -> None:
        if len(self._messages) >= self._size:
            self._messages.popleft()
            if not self.dropped:
                logger.warning("messages of %s are dropped: %d were not read", self._name, self._size)
            self.dropped += 1
        self._messages.append(message)
        self._changed.set()

    def close(self, error: ClientClosed | None) -> None:
        self._error = error
        self._changed.set()

    async def take(self) -> Any:
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    async def iterate(self) -> AsyncIterator[Any]:
        while True:
            try:
                message = await self.take()
            except ClientClosed as error:
                if error.code == 1000:
                    return
                raise
            yield message
