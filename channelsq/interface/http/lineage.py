"""Which run of a request an answer comes from: the parts of two runs are never joined."""

from __future__ import annotations

from typing import Any

from channelsq.delivery.attempts import ATTEMPT, PART

#: Runs that one answer's parts are known to come from at most: of a stream that many messages go on with, the last.
_MOST = 256


class BrokenLineage(Exception):
    """A part does not belong to the answer that has begun, or a part before it is missing.

    Args:
        action: for the log.
        reason: the same.
    """

    def __init__(self, action: str, reason: str) -> None:
        self.action = action
        super().__init__(reason)


class Lineage:
    """The runs that one answer comes from, and its numbered parts so far.

    A part without ids comes from an older worker, or from an application that answers by the reply channel's name; it
    is taken as it is.
    """

    def __init__(self) -> None:
        self._runs: dict[str, str] = {}
        self._parts = 0

    def grant(self, message: dict[str, Any]) -> None:
        """From now on only the run that asks in ``message`` may begin the answer."""
        self._runs.clear()
        self._runs.update(_attempt(message))

    def is_stale(self, message: dict[str, Any], *, begun: bool) -> bool:
        """Return whether a part comes from a run that may not answer any more.

        Args:
            message: the part.
            begun: whether a part of the answer has left.

        Raises:
            BrokenLineage: it has, and this part comes from another run.
        """
        attempt = _attempt(message)
        for identity, run in attempt.items():
            if self._runs.get(identity, run) != run:
                if begun:
                    raise BrokenLineage("runs_mixed", "another run of the request answers as well")
                return True
        self._runs.update(attempt)
        while len(self._runs) > _MOST:
            del self._runs[next(iter(self._runs))]
        return False

    def is_next(self, message: dict[str, Any]) -> bool:
        """Count a part of the answer; return False for one that was there before.

        Raises:
            BrokenLineage: a part before it is missing.
        """
        number = message.get(PART)
        if type(number) is not int:
            return True
        if number > self._parts:
            raise BrokenLineage("response_gap", f"part {self._parts} of it was lost")
        if number < self._parts:  # sent twice, as the answer to the first try was lost
            return False
        self._parts += 1
        return True


def _attempt(message: dict[str, Any]) -> dict[str, str]:
    attempt = message.get(ATTEMPT)
    if not isinstance(attempt, dict) or len(attempt) > _MOST:
        return {}
    return {identity: run for identity, run in attempt.items() if isinstance(run, str)}
