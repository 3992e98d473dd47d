"""Messages that a worker holds for longer than RabbitMQ's ``consumer_timeout`` of 30 minutes.

RabbitMQ then closes the AMQP channel and redelivers all of its messages, and again half an hour later.  So such a
message is acknowledged before.  While its consumer runs this is logged, because the worker's death would lose it.  A
message that waits for its ETA is published again first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from channelsq.layers.amqp.amqp_delivery import AmqpDelivery
from channelsq.layers.amqp.amqp_sender import AmqpSender

logger = logging.getLogger("channelsq.worker")

#: The most seconds for which a message is held; RabbitMQ checks once a minute.
HELD = 900.0

#: Seconds between two checks.
_LOOK_EVERY = 1.0


class Holder(Protocol):
    """The source that holds messages."""

    def acknowledge(self, deliveries: Sequence[AmqpDelivery]) -> None:
        """Acknowledge messages; raise the transport's errors."""

    def detach(self, delivery: AmqpDelivery) -> Callable[[bool], None]:
        """Remove a message that has not run.

        Returns:
            a function that acknowledges it if called with True, otherwise has it redelivered; it raises nothing.
        """


class HoldLimit:
    """Enforces the limit on a source's held messages.

    Args:
        sender: the layer's sender.
        holder: the source.
    """

    def __init__(self, sender: AmqpSender, holder: Holder) -> None:
        self._sender = sender
        self._holder = holder
        self._looked = 0.0

    def is_time(self) -> bool:
        """Return whether a check is due."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return False
        self._looked = now
        return True

    def look(self, held: Iterable[AmqpDelivery]) -> None:
        """Acknowledge messages that were held for too long; raise the transport's errors."""
        now = time.monotonic()
        for delivery in held:
            if now - delivery.since < HELD or delivery.is_acknowledged:
                continue
            if _waits(delivery.eta):
                self._publish_again(delivery)
                continue
            logger.warning(
                "queue %s: a consumer has run for %.0f s; its message is acknowledged now, as RabbitMQ would take it "
                "back (consumer_timeout), and is lost if the worker dies",
                delivery.queue, now - delivery.since,
                extra={"action": "acknowledged_early"},
            )  # fmt: skip
            self._holder.acknowledge([delivery])

    def _publish_again(self, delivery: AmqpDelivery) -> None:
        conclude = self._holder.detach(delivery)
        self._sender.publish_copy(
            delivery.queue, delivery.header, delivery.body, str(delivery.key[0]), lambda error: conclude(error is None)
        )


def _waits(eta: object) -> bool:
    """Return whether a message waits for its ETA."""
    try:
        moment = datetime.fromisoformat(str(eta))
    except ValueError:
        return False
    return moment.timestamp() > time.time() if moment.tzinfo is not None else False
