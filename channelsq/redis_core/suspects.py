"""Suspects in quarantine: messages with which consumers died, handed out so that the guilty one is found.

A consumer that dies may hold hundreds of messages, of which one killed it.  All of them come to other consumers with
the count of their deaths, and would all be buried with the guilty one if they always travelled together.  So the
higher the count, the fewer of them a consumer holds at a time: a message before its last chance is alone in
quarantine, one before its last but one among four at most, then sixteen.  The guilty one has been there at each
death, so nothing has a higher count than it has, and it is alone when it kills for the last time.
"""

from __future__ import annotations

from collections.abc import Callable

#: How many processes may die with a message, if nobody chose another number: it is not delivered any more then.
MOST_DEATHS = 5

#: How many leases a suspect must have survived in a consumer's hands to be no suspect there any more: long tasks
#: shall not hold up the other suspects for ever.
CLEARED_AFTER = 10

#: How many times more suspects may be together for each chance that they have left.
NARROWING = 4.0


class Suspects:
    """What one consumer holds of suspects.

    Args:
        limit: how many deaths make a dead letter; None if no number does, then there is no quarantine.
        lease: seconds.
    """

    def __init__(self, limit: int | None, lease: float) -> None:
        self._limit = limit
        self._cleared_after = CLEARED_AFTER * lease
        self._held: dict[str, tuple[float, float]] = {}  # by tag: its share, and when it is cleared
        self._room_then: float | None = None

    def cost(self, deaths: int) -> float:
        """The share of the quarantine that a message takes; the same as in take_over.lua."""
        limit = self._limit
        if limit is None or deaths < 1 or deaths >= limit or (deaths < 2 and limit > 2):
            return 0.0
        return NARROWING ** (deaths - limit + 1)

    def admit(self, tag: str, deaths: int, now: float) -> None:
        """Note that the consumer was given a message."""
        cost = self.cost(deaths)
        if cost:
            self._held[tag] = (cost, now + self._cleared_after)

    def room(self, holds: Callable[[str], bool], now: float) -> float:
        """The share that is free, 0 to 1.

        Args:
            holds: whether the consumer still holds the message with a tag.
            now: by the same clock as :meth:`admit` has it.
        """
        if self._held:
            self._held = {
                tag: (cost, cleared)
                for tag, (cost, cleared) in self._held.items()
                if cleared > now and holds(tag)
            }  # fmt: skip
        return max(0.0, 1.0 - sum(cost for cost, _ in self._held.values()))

    def stopped(self, room: float | None) -> None:
        """Note that suspects were left behind because there was only so much room, or None for that none were."""
        self._room_then = room

    @property
    def waited_for(self) -> bool:
        """Whether suspects were left behind."""
        return self._room_then is not None

    def may_go_on(self, holds: Callable[[str], bool], now: float) -> bool:
        """Whether suspects were left behind and there is more room since."""
        return self._room_then is not None and self.room(holds, now) > self._room_then

    def forget(self) -> None:
        """Hold nothing any more."""
        self._held.clear()
        self._room_then = None
