"""The outcomes of carrying out a message of the application, and of publishing a client's message.

::

    ChannelsqError
    ├── TryLater     not now: nothing was done, and another attempt may succeed
    ├── Rejected     never: nothing was done, and another attempt would fail, too
    └── Unsure       perhaps done: another attempt might do it twice
"""

from __future__ import annotations

from channelsq.exceptions import ChannelsqError


class TryLater(ChannelsqError):
    """A message could not be carried out or published now, and nothing was done.

    Args:
        reason: one line for operators and for the receipt.
        after: seconds that the other side wants to pass before another attempt; None if it did not say.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Rejected(ChannelsqError):
    """A message cannot be carried out, now or later.

    Args:
        reason: one line for operators and for the receipt.
        code: the other side's own code of the error, if it has one.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Unsure(ChannelsqError):
    """The other side did not say whether it has the message; it is not sent again.

    Args:
        reason: one line for operators and for the receipt.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
