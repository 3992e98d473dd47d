"""The servers that this process has found away, so that it does not wait for them again and again."""

from __future__ import annotations

import threading
from time import monotonic

from channelsq.exceptions import BrokerUnavailable

#: Seconds for which a server that has failed is not tried again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0

#: Seconds for which one caller's attempt keeps the others away: a server that is frozen answers as late as that.
TRYING = 20.0


class ShardHealth:
    """The servers that are away, as far as this process knows.  Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Of each server that is away: the last error, when it is tried again, and the pause before the next try.
        self._away: dict[int, tuple[BrokerUnavailable, float, float]] = {}

    def problem(self, place: int) -> BrokerUnavailable | None:
        """Return why the server at ``place`` must not be used now; None if it may.

        After a pause one caller may try; the others go on without the server meanwhile.
        """
        if not self._away:
            return None
        with self._lock:
            known = self._away.get(place)
            if known is None:
                return None
            error, until, pause = known
            if monotonic() < until:
                return BrokerUnavailable(error.url, error.reason, error.remedy)
            self._away[place] = error, monotonic() + TRYING, pause
            return None

    def is_away(self, place: int) -> bool:
        """Return whether a server did not answer when it was asked last."""
        return place in self._away

    def failed(self, place: int, error: BrokerUnavailable) -> None:
        """Record that a server did not answer."""
        with self._lock:
            known = self._away.get(place)
            pause = FIRST_PAUSE if known is None else min(known[2] * 2, LONGEST_PAUSE)
            self._away[place] = error, monotonic() + pause, pause

    def answered(self, place: int) -> None:
        """Record that a server has answered."""
        if self._away:
            with self._lock:
                self._away.pop(place, None)
