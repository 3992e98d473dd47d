"""The limits of a request's body: its size, and its rate."""

from __future__ import annotations

import asyncio
import math

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, HTTPScope

from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.http.request_message import Refused


class Upload:
    """The events of uvicorn's ``receive``, as long as the client keeps to the limits.

    Only the time in which the server waits for the client counts, not the time in which it does not read.

    Args:
        context: the state that all connections share.
        scope, receive: those of uvicorn.
        patience: seconds without a byte after which the body is too slow in any case.
    """

    def __init__(
        self, context: ServerContext, scope: HTTPScope, receive: ASGIReceiveCallable, *, patience: float = math.inf
    ) -> None:
        self._loop = context.loop
        self._scope = scope
        self._receive = receive
        self._patience = patience
        self._max = context.config.max_body_size or math.inf
        self._rate = context.config.min_body_rate
        self._grace = context.config.header_timeout
        self._size = 0
        self._waited = 0.0
        self._complete = False

    def check(self) -> None:
        """Check the announced size before the server reads any of the body.

        Raises:
            Refused: the body is too large.
        """
        for name, value in self._scope["headers"]:
            if name == b"content-length" and int(value) > self._max:
                raise self._too_large()

    async def __call__(self) -> ASGIReceiveEvent:
        """Return the next event.

        Raises:
            Refused: the body is too large, or comes too slowly.
        """
        if self._complete:
            return await self._receive()
        begun = self._loop.time()
        left = self._patience
        if self._rate:
            left = min(left, self._grace + self._size / self._rate - self._waited)
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                event = await self._receive()
        except TimeoutError:
            waited = self._waited + self._loop.time() - begun
            reason = f"only {self._size} bytes of its body came in {waited:.1f} s"
            raise Refused(408, "slow_body", reason, ends=True) from None
        self._waited += self._loop.time() - begun
        if event["type"] == "http.request":
            self._size += len(event.get("body", b""))
            self._complete = not event.get("more_body", False)
            if self._size > self._max:
                raise self._too_large()
        return event

    def _too_large(self) -> Refused:
        return Refused(413, "body_too_large", f"its body has more than {self._max} bytes", ends=True)
