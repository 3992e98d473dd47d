"""Questions to the broker, asked on demand: the depths of channels, and the streaming responses of workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from channelsq.core import streaming
from channelsq.core.streaming import Streaming
from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.log_fields import extra
from channelsq.layers.contract.layer_contract import BaseChannelLayer

T = TypeVar("T")

logger = logging.getLogger("channelsq.interface")

#: The name of the worker that runs in this process, for a layer that no other process can see.
EMBEDDED = "embedded"


class Asked(Generic[T]):
    """A question that a thread asks.

    Args:
        question: returns the answer; may raise BrokerUnavailable.
        about: the subject, for the log.
    """

    def __init__(self, question: Callable[[], dict[str, T]], about: str) -> None:
        self._question = question
        self._about = about
        self._answer: asyncio.Future[dict[str, T]] | None = None

    async def ask(self, timeout: float) -> dict[str, T]:
        """Return the answer; empty if it is not known in time.

        Concurrent callers share one question: an unreachable broker blocks one thread, not many.
        """
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            # A daemon: the process can exit while a broker does not respond.
            threading.Thread(
                target=self._run, args=(self._answer,), name="channelsq-asks", daemon=True
            ).start()  # fmt: skip
        answer = self._answer
        await asyncio.wait({answer}, timeout=timeout)
        return answer.result() if answer.done() else {}

    def _run(self, answer: asyncio.Future[dict[str, T]]) -> None:
        found: dict[str, T] = {}
        try:
            found = self._question()
        except BrokerUnavailable:
            found = {}  # another metric reports an unreachable broker
        except Exception as error:
            found = {}
            logger.warning("cannot get %s: %s", self._about, error, extra=extra("not_known"))
        # A closed loop raises RuntimeError: then no caller waits any more.
        with contextlib.suppress(RuntimeError):
            answer.get_loop().call_soon_threadsafe(answer.set_result, found)


def depths(layer: BaseChannelLayer, channels: Sequence[str]) -> dict[str, int]:
    """Return the approximate number of messages that no worker has taken yet, by channel.

    Args:
        layer: the channel layer.
        channels: the channels to query.
    """
    found = {channel: layer.depth(channel) for channel in channels}
    return {channel: depth for channel, depth in found.items() if depth is not None}


def streams(layer: BaseChannelLayer, alias: str) -> dict[str, Streaming]:
    """Return the streaming responses of a layer's workers, by worker name; empty if the layer has no announcements.

    Args:
        layer: the channel layer.
        alias: its alias.
    """
    if layer.in_process:
        return {EMBEDDED: streaming.responses_of(alias).state}
    presence = layer.presence
    return {
        each.name: Streaming(each.streaming, each.streaming_limit)
        for each in (() if presence is None else presence.announced())
        if each.streaming is not None
    }
