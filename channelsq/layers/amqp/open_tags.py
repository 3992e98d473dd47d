"""The delivery tags of an AMQP channel that are not acknowledged (AMQP 0-9-1, basic.ack)."""

from __future__ import annotations

from collections.abc import Set

from channelsq.layers.amqp import amqp_frames


class OpenTags:
    """Keeps unacknowledged tags in order, so that one frame acknowledges all of the oldest.

    Args:
        channel: the number of the AMQP channel.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._tags: dict[int, None] = {}

    def add(self, tag: int) -> None:
        """Add the tag of a delivery."""
        self._tags[tag] = None

    def discard(self, tag: int) -> None:
        """Remove a tag that is acknowledged or rejected by a frame of its own."""
        self._tags.pop(tag, None)

    def clear(self) -> None:
        """Forget all tags: the connection is lost."""
        self._tags.clear()

    def acknowledge(self, tags: Set[int]) -> bytes:
        """Remove tags, and return the fewest frames that acknowledge them and no others."""
        last = 0
        for tag in self._tags:
            if tag not in tags:
                break
            last = tag
        frames = [amqp_frames.acknowledge(self._channel, last, multiple=True)] if last else []
        for tag in tags:
            self._tags.pop(tag, None)
            if tag > last:
                frames.append(amqp_frames.acknowledge(self._channel, tag))
        return b"".join(frames)
