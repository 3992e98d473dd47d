"""The sizes of channels, and the messages that wait for room in them.  No I/O."""

from __future__ import annotations

from collections import deque

from channelsq.interface.link.link_contract import Publication
from channelsq.layers.contract.capacity_window import TRUSTED, CapacityWindow

#: Seconds between two questions while a channel is full: the first wait, and the longest.
_PAUSES = 0.002, 0.05


class ChannelWindow(CapacityWindow):
    """The capacity window of one channel, and the messages that wait for it to open.

    What was sent after the question for the channel's size is taken off the answer.

    Args:
        target: the channel.
        capacity: how many messages it holds.
        bare: whether its messages are no tasks, but for a single reader.
    """

    __slots__ = ("_sent", "asking", "bare", "pause", "pausing", "target", "waiting")

    def __init__(self, target: str, capacity: int, *, bare: bool = False) -> None:
        super().__init__(capacity)
        self.target = target
        self.bare = bare
        #: Whether the size has been asked for and not been told yet.
        self.asking = False
        #: What waits for an answer, or for room, first come first served.
        self.waiting: deque[Publication] = deque()
        self.pause = _PAUSES[0]
        #: Whether a question is due after a pause.
        self.pausing = False
        self._sent = 0

    @property
    def in_use(self) -> bool:
        """Return whether the window must be kept."""
        return bool(self.waiting) or self.asking

    def wants_answer(self, now: float) -> bool:
        """Return whether to ask for the size now, so that the answer arrives before this one is used up or old."""
        return not self.asking and (self.left * 2 < self.capacity or now - self._asked > TRUSTED / 2)

    def take(self) -> None:
        """Note that a message is sent."""
        self.left -= 1
        self._sent += 1

    def ask(self) -> None:
        """Note that the size is asked for, after the messages sent so far."""
        self.asking = True
        self._sent = 0

    def answer(self, size: int, now: float) -> None:
        """Note the size at the time of the question."""
        self.asking = False
        self.open(size + self._sent, now)
        if self.left > 0:
            self.pause = _PAUSES[0]

    def next_pause(self) -> float:
        """Return the seconds before the next question."""
        pause, self.pause = self.pause, min(self.pause * 1.5, _PAUSES[1])
        return pause

    def forget(self) -> None:
        """Forget the size, because the connection was lost."""
        self.asking = False
        self.close()

    def let_one_through(self) -> None:
        """Let one message go with the question; the others wait for its answer, because the last one is old."""
        self.left = min(self.left, 1)

    def expired(self, now: float) -> list[Publication]:
        """Remove and return the messages that have waited for as long as they may."""
        over = [each for each in self.waiting if now >= each.deadline]
        if over:
            self.waiting = deque(each for each in self.waiting if now < each.deadline)
        return over
