"""The errors of the client.

They are apart from those of channelsq.exceptions, which imports Django.
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of the errors of this module."""


class ClientClosed(ClientError):
    """The client is closed for good; ``__cause__`` has the error of the last attempt, if there was one.

    Args:
        code: the close code; None if there was no connection.
        reason: a text for people.
    """

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"the client is closed for good: {reason or code}")
        self.code = code
        self.reason = reason


class QueueFull(ClientError):
    """As many messages as are kept wait for a connection; this one was not sent."""


class TaskFailed(ClientError):
    """A live task has no result.

    Args:
        state: ``"failure"``, ``"revoked"``, ``"unknown"`` or ``"refused"``.
        error: a text for people.
    """

    def __init__(self, state: str, error: str) -> None:
        super().__init__(error)
        self.state = state
