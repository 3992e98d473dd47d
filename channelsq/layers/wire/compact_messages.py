"""A layer's messages in the compact form of :mod:`channelsq.redis_core.compact`, for a broker that stores bytes."""

from __future__ import annotations

from channelsq.core.names import new_id
from channelsq.layers.wire import codec
from channelsq.layers.wire.protection import NONE, Protection
from channelsq.redis_core.compact import TaskFrame, encode_compact

#: The most channels that are cached.
_MOST = 1000


class CompactMessages:
    """Encoder of one layer's messages.

    Args:
        expiry: seconds that an unread message lives.
        queue_prefix: the prefix of the layer's queue names before the channel names.
        protection: the layer's.
    """

    def __init__(self, expiry: float, queue_prefix: str = "", protection: Protection = NONE) -> None:
        self.queue_prefix = queue_prefix
        self.protection = protection
        self.expiry_ms = max(1, int(expiry * 1000))
        self._frames: dict[str, TaskFrame] = {}

    def task(self, channel: str, packed: bytes, identity: str | None = None, delay: float = 0.0) -> bytes:
        """Return the message for a channel that workers consume.

        Args:
            channel: its name.
            packed: the content.
            identity: the message's id, if it may have been sent before; a new one if left out.
            delay: seconds before workers may run it.
        """
        identity = identity or new_id()
        frame = self._frames.get(channel) or self._frame(channel)
        if not self.protection.is_on:
            return frame.encode(identity, packed)
        queue = self.queue_prefix + channel
        start = b"\x93\x92" + codec.dumps(channel)
        body = self.protection.task(queue, identity, start, packed, self.expiry_ms + delay * 1000)
        return encode_compact(queue, identity, body, self.expiry_ms)

    def _frame(self, channel: str) -> TaskFrame:
        # [[channel, content], {}, {}]; the packed content is inserted unchanged.
        start = b"\x93\x92" + codec.dumps(channel)
        frame = TaskFrame(self.queue_prefix + channel, start, b"\x80\x80", self.expiry_ms)
        if len(self._frames) < _MOST:
            self._frames[channel] = frame
        return frame

    def bare(self, queue: str, body: bytes) -> bytes:
        """Return an envelope for a process's reply queue, or the message of a ``?`` channel's queue.

        Args:
            queue: its name without the layer's prefix.
            body: the envelope, or the packed content.
        """
        if self.protection.is_on:
            body = self.protection.bare(self.queue_prefix + queue, body, self.expiry_ms)
        return encode_compact(None, None, body, self.expiry_ms)
