"""The run of a request from which a response comes: parts of two runs are never joined."""

from __future__ import annotations

from typing import Any

from channelsq.delivery.attempts import ATTEMPT, PART

#: The largest number of recorded runs for one response: of a stream that many messages continue, the last ones.
_MOST = 256


class BrokenLineage(Exception):
    """A part does not belong to the response that has begun, or an earlier part is missing.

    Args:
        action: the action of the log line.
        reason: the reason in the log line.
    """

    def __init__(self, action: str, reason: str) -> None:
        self.action = action
        super().__init__(reason)


class Lineage:
    """The runs from which one response comes, and its numbered parts so far.

    A part without ids comes from an older worker, or from an application that answers by the reply channel's name; it
    is accepted without checks.
    """

    def __init__(self) -> None:
        self._runs: dict[str, str] = {}
        self._parts = 0

    def grant(self, message: dict[str, Any]) -> None:
        """Let only the run that asks in ``message`` begin the response from now on."""
        self._runs.clear()
        self._runs.update(_attempt(message))

    def is_stale(self, message: dict[str, Any], *, begun: bool) -> bool:
        """Return whether a part comes from a run that may not answer any more.

        Args:
            message: the part.
            begun: whether a part of the response has left.

        Raises:
            BrokenLineage: a part has left, and this part comes from another run.
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
        """Count a part of the response; return False for a duplicate.

        Raises:
            BrokenLineage: an earlier part is missing.
        """
        number = message.get(PART)
        if type(number) is not int:
            return True
        if number > self._parts:
            raise BrokenLineage("response_gap", f"part {self._parts} of it was lost")
        if number < self._parts:  # sent twice, as the reply to the first attempt was lost
            return False
        self._parts += 1
        return True


def _attempt(message: dict[str, Any]) -> dict[str, str]:
    attempt = message.get(ATTEMPT)
    if not isinstance(attempt, dict) or len(attempt) > _MOST:
        return {}
    return {identity: run for identity, run in attempt.items() if isinstance(run, str)}
