"""The queues of Kombu's virtual transports, seen from outside of the transport.

AMQP's way to ask for a queue's size does not do: on a virtual transport an empty queue may not exist, and declaring it
changes when it expires.  Private parts of Kombu;
``tests/unit/layers/kombu_broker/test_kombu_queue_internals.py`` pins them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def size(channel: Any, queue: str) -> int | None:
    """Return how many messages wait in a queue; None if the channel's transport is not virtual."""
    return int(channel._size(queue)) if hasattr(channel, "_size") else None


def drop(channel: Any, queue: str, is_unwanted: Callable[[dict[str, Any]], bool]) -> int:
    """Delete some of a queue's messages, and return how many; the others keep their order.

    Args:
        channel: a channel of a virtual transport in this process's memory.
        queue: the queue.
        is_unwanted: called with the payload of each message.
    """
    waiting = [channel._get(queue) for _ in range(channel._size(queue))]
    kept = [payload for payload in waiting if not is_unwanted(payload)]
    for payload in kept:
        channel._put(queue, payload)
    return len(waiting) - len(kept)
