"""Messages that need a newer worker: they wait in this one for a moment, and are then left to others.

In the middle of a deploy a newer worker reads the same queue, and has a message as soon as this one gives it back.  A
message that is given back at once would come again at once, so it is held first.  Few are held at a time: more become
dead letters, where the broker has a place for those.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from channelsq.layers.contract.source_contract import Source

#: Seconds that a message is held before it is given back.
HELD = 2.0

#: How many messages of a layer are held at a time.
MOST = 100


class Newer:
    """The messages of one source that need a newer worker.  For the thread that polls.

    Args:
        source: where they come from.
    """

    def __init__(self, source: Source[Any]) -> None:
        self._source = source
        self._held: deque[tuple[float, Any]] = deque()

    def hold(self, delivery: Any) -> bool:
        """Hold a message, which takes no credit meanwhile; return False if too many are held."""
        if len(self._held) >= MOST:
            return False
        self._source.make_room(1)
        self._held.append((monotonic() + HELD, delivery))
        return True

    def leave(self, *, every: bool = False) -> None:
        """Leave the messages that were held for long enough to other workers; raise the transport's errors.

        Args:
            every: leave all, as the worker ends.
        """
        now = monotonic()
        while self._held and (every or self._held[0][0] <= now):
            self._source.leave(self._held[0][1])  # if it fails, the message is still held
            self._held.popleft()
            self._source.make_room(-1)

    def forget(self) -> None:
        """Forget the messages, as the broker has them again."""
        while self._held:
            self._source.abandon(self._held.popleft()[1])
