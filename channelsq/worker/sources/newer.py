"""Messages that need a newer worker: this worker holds them briefly, and then leaves them to others.

During a deploy a newer worker reads the same queue and gets a message as soon as this worker gives it back.  Without
the wait, this worker would get the message again at once.  Only few messages are held at a time; further ones become
dead letters if the broker stores dead letters.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from channelsq.layers.contract.source_contract import Source

#: Seconds that a message is held before it is given back.
HELD = 2.0

#: The most messages of a layer that are held at a time.
MOST = 100


class Newer:
    """The messages of one source that need a newer worker.  Only the polling thread uses it.

    Args:
        source: the source of the messages.
    """

    def __init__(self, source: Source[Any]) -> None:
        self._source = source
        self._held: deque[tuple[float, Any]] = deque()

    def hold(self, delivery: Any) -> bool:
        """Hold a message without using credit; return False if too many are held."""
        if len(self._held) >= MOST:
            return False
        self._source.make_room(1)
        self._held.append((monotonic() + HELD, delivery))
        return True

    def leave(self, *, every: bool = False) -> None:
        """Leave messages that were held long enough to other workers; raise the transport's errors.

        Args:
            every: whether to leave all messages, as the worker ends.
        """
        now = monotonic()
        while self._held and (every or self._held[0][0] <= now):
            self._source.leave(self._held[0][1])  # if it fails, the message is still held
            self._held.popleft()
            self._source.make_room(-1)

    def forget(self) -> None:
        """Forget the messages, as the broker will redeliver them."""
        while self._held:
            self._source.abandon(self._held.popleft()[1])
