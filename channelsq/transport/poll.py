"""One request for messages, on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from channelsq.transport.qos import Ack


@dataclass
class Poll:
    """A poll whose answer has not been read."""

    connection: Any
    #: ``read`` waits for messages, ``take`` asks for what is there, ``more`` for what the one busy stream has and
    #: ``look`` for what is in front of it, ``claim`` for what dead consumers held, ``wake`` for an answer at once.
    kind: Literal["read", "take", "more", "look", "claim", "wake"]
    #: COUNT of a ``read``, the most that the others may give.
    asked: int
    #: The streams that are asked.
    keys: list[str] = field(default_factory=list)
    #: The free part of the quarantine that a ``claim`` tells the server.
    room: float = 0.0
    #: Acknowledgements in it that are not confirmed yet.
    acks: list[Ack] = field(default_factory=list)

    def found_others_empty(self, key: str, steps: int) -> bool:
        """Whether it brought messages of ``key`` alone, and found the other queues of the same priority empty.

        Args:
            key: the one stream that had any.
            steps: how many streams, one for each priority, a queue has.
        """
        if self.kind != "take":
            return True  # it asked them all; a "take" ends when it has enough
        queues = len(self.keys) // steps
        return self.keys.index(key) % queues == queues - 1


def rounded(count: int) -> int:
    """A count not above ``count``, of the few that commands are made for."""
    return count if count <= 2 else 1 << (count.bit_length() - 1)
