"""The messages of consumers on RabbitMQ: published and confirmed before the consumers' own are acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.amqp.amqp_delivery import AmqpDelivery
from channelsq.layers.amqp.amqp_sender import AmqpSender

logger = logging.getLogger("channelsq.worker")

#: Seconds between two attempts to publish the messages of a consumer, and the most seconds in all.
_AGAIN, _LONGEST = 1.0, 60.0


class Holder(Protocol):
    """The source that holds the consumers' own messages."""

    #: Whether the worker ends, so that nothing is tried again.
    ends: bool

    def is_lost(self, delivery: AmqpDelivery) -> bool:
        """Return whether RabbitMQ redelivers a message."""

    def acknowledge(self, deliveries: Sequence[AmqpDelivery]) -> None:
        """Acknowledge messages; from any thread."""


class ConfirmedSends:
    """Publishes what consumers have sent.

    Args:
        sender: the layer's sender.
        holder: the source.
    """

    def __init__(self, sender: AmqpSender, holder: Holder) -> None:
        self._sender = sender
        self._holder = holder

    def publish(self, deliveries: list[AmqpDelivery]) -> None:
        """Send the messages of consumers, then acknowledge the consumers' own messages.

        Returns at once.  While RabbitMQ is away it tries again for a minute, for those messages that are not lost.
        """
        self._publish(deliveries, time.monotonic() + _LONGEST)

    def _publish(self, deliveries: list[AmqpDelivery], until: float) -> None:
        outboxes = [delivery.outbox for delivery in deliveries if delivery.outbox is not None]
        self._sender.send_outboxes(outboxes, lambda error: self._done(deliveries, until, error))

    def _done(self, deliveries: list[AmqpDelivery], until: float, error: Exception | None) -> None:
        if isinstance(error, BrokerUnavailable) and time.monotonic() < until and not self._holder.ends:
            self._try_again(deliveries, until)
            return
        if error is not None:
            logger.error("the messages of consumers could not be sent: %s", error, extra={"action": "not_sent"})
        for delivery in deliveries:
            delivery.is_sent = True
            delivery.outbox = None
        try:
            self._holder.acknowledge(deliveries)
        except Exception as raised:  # the polling thread notices the error, too
            logger.debug("acknowledgements are lost: %s", raised, extra={"action": "acks_lost"})

    def _try_again(self, deliveries: list[AmqpDelivery], until: float) -> None:
        left = []
        for delivery in deliveries:
            delivery.is_sending = not self._holder.is_lost(delivery)
            if delivery.is_sending:
                left.append(delivery)
        if left:
            timer = threading.Timer(_AGAIN, self._publish, (left, until))
            timer.daemon = True
            timer.start()
