"""Suspects in quarantine: messages whose consumers died, delivered so that the guilty one is found.

A consumer that dies may hold hundreds of messages, of which one killed it.  Other consumers take all of them over,
with the count of their deaths.  If these messages always travelled together, all would become dead letters.  So the
higher the count, the fewer of them a consumer holds at a time.  A message before its last chance is alone in
quarantine, one before its last but one is among at most four, then sixteen.  The guilty message was present at each
death, so no other has a higher count, and it is alone at its last death.
"""

from __future__ import annotations

from collections.abc import Callable

#: The default number of deaths at which a message becomes a dead letter.
MOST_DEATHS = 5

#: The number of leases that a suspect must survive with one consumer to be cleared there, so that long tasks do not
#: block the other suspects for ever.
CLEARED_AFTER = 10

#: The factor by which each remaining chance increases the number of suspects that may be together.
NARROWING = 4.0


class Suspects:
    """The suspects that one consumer holds.

    Args:
        limit: the number of deaths that makes a dead letter; None for no limit, and then there is no quarantine.
        lease: seconds.
    """

    def __init__(self, limit: int | None, lease: float) -> None:
        self._limit = limit
        self._cleared_after = CLEARED_AFTER * lease
        self._held: dict[str, tuple[float, float]] = {}  # by tag: its share, and the time when it is cleared
        self._room_then: float | None = None

    def cost(self, deaths: int) -> float:
        """Return the share of the quarantine that a message takes; the same as in take_over.lua."""
        limit = self._limit
        if limit is None or deaths < 1 or deaths >= limit or (deaths < 2 and limit > 2):
            return 0.0
        return NARROWING ** (deaths - limit + 1)

    def admit(self, tag: str, deaths: int, now: float) -> None:
        """Record a message that was delivered to the consumer."""
        cost = self.cost(deaths)
        if cost:
            self._held[tag] = (cost, now + self._cleared_after)

    def room(self, holds: Callable[[str], bool], now: float) -> float:
        """Return the free share, 0 to 1.

        Args:
            holds: returns whether the consumer still holds the message with a tag.
            now: the time of the same clock as in :meth:`admit`.
        """
        if self._held:
            self._held = {
                tag: (cost, cleared)
                for tag, (cost, cleared) in self._held.items()
                if cleared > now and holds(tag)
            }  # fmt: skip
        return max(0.0, 1.0 - sum(cost for cost, _ in self._held.values()))

    def stopped(self, room: float | None) -> None:
        """Record the free share with which suspects were left waiting; None if no suspect was left."""
        self._room_then = room

    @property
    def waited_for(self) -> bool:
        """True if suspects were left waiting."""
        return self._room_then is not None

    def may_go_on(self, holds: Callable[[str], bool], now: float) -> bool:
        """Return whether suspects were left waiting and more space is free since."""
        return self._room_then is not None and self.room(holds, now) > self._room_then

    def forget(self) -> None:
        """Remove all suspects."""
        self._held.clear()
        self._room_then = None
