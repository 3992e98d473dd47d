"""Kombu's poller of Redis connections, extended for batches.

Private parts of Kombu; ``tests/unit/transport/test_kombu_poller_internals.py`` pins them.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

import kombu
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

    @property
    def channels(self) -> list[Any]:
        """The polled channels."""
        return list(self._channels)

    def on_poll_start(self) -> None:
        """Start polls where there is credit; then send the acknowledgements that were sent with none of them."""
        super().on_poll_start()
        for channel in self.channels:
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


def keep_polling(cycle: Any, hub: Any) -> None:
    """Make an event loop continue to poll the other connections when one ends, and that one when it is back.

    Before 5.7, Kombu stops polling all of them, and leaves the descriptor registered in the event loop.  The loop then
    watches the next connection with the same number, without a callback for it.

    Args:
        cycle: the transport's poller, registered with the event loop.
    """
    if kombu.VERSION >= (5, 7):  # type: ignore[attr-defined]  # not in its stubs
        return

    def on_disconnect(connection: Any) -> None:
        ended = {key for key in cycle._chan_to_sock if key[1].connection is connection}
        for key in ended:
            del cycle._chan_to_sock[key]
        polled = {(channel, kind) for channel, _, kind in ended}
        for fd in [fd for fd, channel in cycle._fd_to_chan.items() if channel in polled]:
            hub.remove(fd)
            del cycle._fd_to_chan[fd]

    cycle._on_connection_disconnect = on_disconnect
