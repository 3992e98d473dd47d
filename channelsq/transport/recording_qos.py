"""The base of the transports' QoS: prefetch, and a record of delivered messages that any thread may change."""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import virtual

logger = logging.getLogger("channelsq.transport")


class RecordingQoS(virtual.QoS):
    """Kombu's QoS with a record of its own.

    Kombu's consuming thread alone may change Kombu's record; other threads only mark what they acknowledge.  Here an
    acknowledgement removes the entry: one atomic step for all threads.

    Args:
        channel: the channel of the messages.
        prefetch_count: the most messages that are delivered and not acknowledged; 0 for no limit.
    """

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        self._unacked: dict[str, Any] = {}
        self._has_restored = False
        super().__init__(channel, prefetch_count)

    def can_consume(self) -> bool:
        """Return whether the prefetch window has room."""
        most = self.prefetch_count
        return not most or len(self._unacked) < most

    def can_consume_max_estimate(self) -> int | None:  # type: ignore[override]  # Kombu's stubs leave the None out
        """Return the room in the prefetch window; None without a limit."""
        most = self.prefetch_count
        return max(most - len(self._unacked), 0) if most else None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a delivered message."""
        self._unacked[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """Return a delivered message.

        Raises:
            KeyError: it is not held.
        """
        return self._unacked[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """Remove a message from the record."""
        self._unacked.pop(delivery_tag, None)

    def holds(self, tag: str) -> bool:
        """Return whether a message is delivered and not acknowledged."""
        return tag in self._unacked

    def restore_unacked(self) -> None:
        """Give back all delivered messages."""
        raise NotImplementedError

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back all delivered messages when the channel is closed or the process ends; further calls do nothing."""
        super().restore_unacked_once(stderr)  # Kombu's record is empty: this cancels its call at the process's end
        if self._has_restored or not self.restore_at_shutdown or not self.channel.do_restore:
            return
        self._has_restored = True
        if self._unacked:
            logger.info("giving back %d unacknowledged messages", len(self._unacked))
            self.restore_unacked()
