"""How full channels are, and what waits for room in them.  No I/O."""

from __future__ import annotations

from collections import deque

from channelsq.interface.link.base import Publication

#: Seconds for which a channel's size is taken to be what the server last said it was, less what was sent since.
TRUSTED = 0.1

#: Seconds between two questions while a channel is full: the first wait, and the longest.
_PAUSES = 0.002, 0.05


class Room:
    """One channel's room, as far as this process knows.

    The server is asked for a channel's size when the last answer is used up or old.  What was sent after the
    question is taken off its answer, so with one producer a channel never holds more than its capacity; several
    can pass it together by what they send within :data:`TRUSTED` seconds.

    Args:
        target: the channel.
        capacity: how many messages it holds.
        bare: whether its messages are no tasks, but for a single reader.
    """

    __slots__ = ("_asked", "_sent", "asking", "bare", "capacity", "left", "pause", "pausing", "target", "waiting")

    def __init__(self, target: str, capacity: int, *, bare: bool = False) -> None:
        self.target = target
        self.bare = bare
        self.capacity = capacity
        #: How many messages may still be sent without asking.
        self.left = 0
        #: Whether the size has been asked for and not been told yet.
        self.asking = False
        #: What waits for an answer, or for room, first come first served.
        self.waiting: deque[Publication] = deque()
        self.pause = _PAUSES[0]
        #: Whether a question is due after a pause.
        self.pausing = False
        self._asked = 0.0
        self._sent = 0

    @property
    def in_use(self) -> bool:
        """Whether it must be kept."""
        return bool(self.waiting) or self.asking

    def is_fresh(self, now: float) -> bool:
        """Whether :attr:`left` can be relied on."""
        return now - self._asked < TRUSTED

    def wants_answer(self, now: float) -> bool:
        """Whether it is time to ask, so that there is an answer before this one is used up or old."""
        return not self.asking and (self.left * 2 < self.capacity or now - self._asked > TRUSTED / 2)

    def take(self) -> None:
        """A message is sent."""
        self.left -= 1
        self._sent += 1

    def ask(self) -> None:
        """The size is asked for, after what has been sent."""
        self.asking = True
        self._sent = 0

    def answer(self, size: int, now: float) -> None:
        """The size was ``size`` when it was asked for."""
        self.asking = False
        self.left = self.capacity - size - self._sent
        self._asked = now
        if self.left > 0:
            self.pause = _PAUSES[0]

    def next_pause(self) -> float:
        """How long to wait before the next question."""
        pause, self.pause = self.pause, min(self.pause * 1.5, _PAUSES[1])
        return pause

    def forget(self) -> None:
        """Nothing is known any more: the connection was lost."""
        self.asking = False
        self.left = 0
        self._asked = 0.0

    def let_one_through(self) -> None:
        """The answer is old and the next one is under way: one message goes with the question, the others wait."""
        self.left = min(self.left, 1)

    def expired(self, now: float) -> list[Publication]:
        """Takes out and gives what has waited for as long as it may."""
        over = [each for each in self.waiting if now >= each.deadline]
        if over:
            self.waiting = deque(each for each in self.waiting if now < each.deadline)
        return over
