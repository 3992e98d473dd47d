"""How many messages wait in the channels that workers consume, asked for when somebody wants to know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.logs import extra
from channelsq.layers.base import BaseChannelLayer

logger = logging.getLogger("channelsq.interface")


class Depths:
    """Asks a layer, in a thread.

    Args:
        layer: the channel layer.
        channels: which of its channels.
    """

    def __init__(self, layer: BaseChannelLayer, channels: Sequence[str]) -> None:
        self._layer = layer
        self._channels = channels
        self._answer: asyncio.Future[dict[str, int]] | None = None

    async def ask(self, timeout: float) -> dict[str, int]:
        """By channel, about how many messages no worker has taken yet; empty if that is not known in time.

        Whoever asks while an answer is due gets the same one: a broker that is away holds up one thread, not many.
        """
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            # A daemon: the end of the process does not wait for a broker that is away.
            threading.Thread(
                target=self._run, args=(self._answer,), name="channelsq-depths", daemon=True
            ).start()  # fmt: skip
        answer = self._answer
        await asyncio.wait({answer}, timeout=timeout)
        return answer.result() if answer.done() else {}

    def _run(self, answer: asyncio.Future[dict[str, int]]) -> None:
        found: dict[str, int] = {}
        try:
            for channel in self._channels:
                depth = self._layer.depth(channel)
                if depth is not None:
                    found[channel] = depth
        except BrokerUnavailable:
            found = {}  # the broker's absence is another metric's to tell
        except Exception as error:
            found = {}
            logger.warning("the depths of channels are not known: %s", error, extra=extra("no_depths"))
        # A closed loop raises RuntimeError: nobody asks any more.
        with contextlib.suppress(RuntimeError):
            answer.get_loop().call_soon_threadsafe(answer.set_result, found)
