"""The prefetch limit of a source's AMQP channel (AMQP 0-9-1, basic.qos)."""

from __future__ import annotations

from channelsq.layers.amqp import amqp_frames


class Prefetch:
    """Computes the limit, and counts its requests and their answers.

    Args:
        channel: the number of the AMQP channel.
        credit: the most messages that the source may hold.
        is_shared: whether one limit applies to all consumers of the channel, and not to each of them.
    """

    def __init__(self, channel: int, credit: int, *, is_shared: bool) -> None:
        self._channel = channel
        self._credit = credit
        self._is_shared = is_shared
        self._granted = 0  # the limit of a consumer, if it was set for each consumer
        #: How many messages more may be held: those that wait for their ETA.
        self.room = 0
        self._asked = 0
        #: The number of answers on this connection.
        self.answered = 0

    def begin(self) -> None:
        """Start anew on another connection."""
        self.room = self._asked = self.answered = 0

    def has_credit(self, held: int) -> bool:
        """Return whether another message may be requested while ``held`` ones are held."""
        return held - self.room < self._credit

    def grant(self) -> tuple[bytes, bool]:
        """Return the frames of a changed limit, and whether it applies only to consumers that are started later."""
        count = self._credit + self.room
        if self._is_shared:
            return self._ask(count), False
        if count <= self._granted:
            return b"", False
        self._granted = count if not self._granted else count * 2
        return self._ask(self._granted), bool(self.answered)

    def repeat(self) -> tuple[bytes, int]:
        """Return the frames of the present limit, and the value of :attr:`answered` once RabbitMQ has read them."""
        return self._ask(self._granted or self._credit + self.room), self._asked

    def _ask(self, count: int) -> bytes:
        self._asked += 1
        return amqp_frames.qos(self._channel, count, is_global=self._is_shared)
