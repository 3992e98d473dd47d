"""The dead letters on the servers of one layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from channelsq.transport.dead_letter_store import DeadLetter, DeadLetters


class AllDeadLetters:
    """The dead letters on several servers, as if they were on one.

    Args:
        parts: those of each server.
    """

    def __init__(self, parts: Sequence[DeadLetters]) -> None:
        self._parts = tuple(parts)

    def all(self, queue: str | None = None) -> Iterator[DeadLetter]:
        """Yield the dead letters of one queue, or of all, server by server."""
        for part in self._parts:
            yield from part.all(queue)

    def find(self, identity: str, queue: str | None = None) -> list[DeadLetter]:
        """Return the dead letters with an id, of one queue or of all; more than one is rare."""
        return [letter for part in self._parts for letter in part.find(identity, queue)]

    def replay(self, letter: DeadLetter) -> bool:
        """Put the message at the end of its queue on its server; return False if the dead letter is gone."""
        return any(part.replay(letter) for part in self._parts)

    def delete(self, letter: DeadLetter) -> bool:
        """Delete the dead letter; return False if it is gone."""
        return any(part.delete(letter) for part in self._parts)
