"""How many processes have died with a message, for brokers that say only that a message was delivered before."""

from __future__ import annotations

import logging

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.redis_core.suspects import MOST_DEATHS

logger = logging.getLogger("channelsq.layers")


def leave_mark(layer: BaseChannelLayer, message_id: str) -> tuple[str, ...] | None:
    """Note that a redelivered message is about to run, where the layer keeps the marks of runs.

    The mark goes with the run's end, see :func:`forget_marks`; a process that dies leaves it.

    Returns:
        the message's marks; None if :data:`MOST_DEATHS` processes have left theirs.
    """
    marks = _marks(message_id)
    try:
        for number, mark in enumerate(marks, 1):
            if layer.begin(mark) is not False:
                return marks[:number]
    except BrokerUnavailable as error:
        logger.warning("%s: its deaths cannot be counted: %s", message_id, error, extra={"action": "deaths_unknown"})
        return ()
    forget_marks(layer, marks)  # the message is dropped
    return None


def forget_marks(layer: BaseChannelLayer, marks: tuple[str, ...]) -> None:
    """Forget marks that :func:`leave_mark` returned."""
    try:
        for mark in marks:
            layer.end(mark, at_once=True)
    except BrokerUnavailable as error:  # then they end by themselves
        logger.debug("marks of deaths are kept: %s", error, extra={"action": "marks_kept"})


def _marks(message_id: str) -> tuple[str, ...]:
    return tuple(f"death {number} {message_id}" for number in range(1, MOST_DEATHS + 1))
