"""Messages that need a newer worker: they wait in this one for a moment, and are then left to others.

In the middle of a deploy a newer worker reads the same queue, and has a message as soon as this one gives it back.  A
message that is given back at once would come again at once, so it is held first.  Few are held at a time: more become
dead letters, where the broker has a place for those.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import monotonic

#: Seconds that a message is held before it is given back.
HELD = 2.0

#: How many messages of a layer are held at a time.
MOST = 100


class Newer:
    """The messages of one source that need a newer worker.  For the thread that polls."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, Callable[[], None]]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, tag: str, give_back: Callable[[], None]) -> bool:
        """Hold a message; return False if too many are held.

        Args:
            tag: tells the message from the others.
            give_back: gives it back to the broker; raises the transport's errors.
        """
        if tag not in self._held:
            if len(self._held) >= MOST:
                return False
            self._held[tag] = monotonic() + HELD, give_back
        return True

    def give_back(self, *, every: bool = False) -> int:
        """Give back the messages that were held for long enough, and return how many these are.

        Args:
            every: give back all, as the source ends.
        """
        now = monotonic()
        due = list(itertools.takewhile(lambda tag: every or self._held[tag][0] <= now, self._held))
        for tag in due:
            self._held[tag][1]()  # if it fails, the message is still held
            del self._held[tag]
        return len(due)

    def forget(self) -> None:
        """Forget the messages, as the broker has them again."""
        self._held.clear()
