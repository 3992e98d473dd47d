"""The number of processes that died with a message, for brokers that report only that it was redelivered."""

from __future__ import annotations

import logging

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.redis_core.suspects import MOST_DEATHS

logger = logging.getLogger("channelsq.layers")


def leave_mark(layer: BaseChannelLayer, message_id: str) -> tuple[str, ...] | None:
    """Write a mark before a redelivered message runs, if the layer stores marks of runs.

    The mark is deleted at the end of the run, see :func:`forget_marks`; it stays if the process dies.

    Returns:
        the message's marks; None if :data:`MOST_DEATHS` processes have left theirs already.
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
    """Delete marks that :func:`leave_mark` returned."""
    try:
        for mark in marks:
            layer.end(mark, at_once=True)
    except BrokerUnavailable as error:  # the marks expire by themselves
        logger.debug("marks of deaths are kept: %s", error, extra={"action": "marks_kept"})


def _marks(message_id: str) -> tuple[str, ...]:
    return tuple(f"death {number} {message_id}" for number in range(1, MOST_DEATHS + 1))
