"""Kombu's poller of Redis connections, extended for batches."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport.redis import MultiChannelPoller

#: The number of messages delivered from batches, without an event loop, before connections are read again.
LOCAL_RUN = 16


class Poller(MultiChannelPoller):
    """Polls the channels of one transport."""

    _channels: set[Any]
    _in_protected_read: bool

    def __init__(self) -> None:
        super().__init__()
        self._local_run = 0

    def on_poll_start(self) -> None:
        """Start polls where there is credit; then send the acknowledgements that were sent with none of them."""
        super().on_poll_start()
        for channel in list(self._channels):
            channel.flush_acks(wait=False)

    def get(self, callback: Callable[..., Any], timeout: float | None = None) -> None:
        """Deliver one message, without an event loop; from a batch if possible.

        Raises:
            queue.Empty: no message came.
        """
        waiting = [channel for channel in self._channels if channel.can_deliver()]
        if waiting:
            self._local_run += 1
            if self._local_run % LOCAL_RUN == 0:  # other channels and fanout must not wait for the whole batch
                try:
                    return super().get(callback, timeout=0)
                except Empty:
                    pass
            if self._deliver(waiting):
                return None
        return super().get(callback, timeout=timeout)

    def _deliver(self, channels: list[Any]) -> bool:
        self._in_protected_read = True  # a consumer cancelled by its own callback is cancelled after the callback
        try:
            return any(channel.deliver(limit=1) for channel in channels)
        finally:
            self._in_protected_read = False
            while self.after_read:
                self.after_read.pop()()
