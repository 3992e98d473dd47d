"""News of a live task for a program: its states and its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The states after which nothing changes.
ENDED = frozenset({"success", "failure", "revoked"})

#: The states of a task that cannot be watched.
LOST = frozenset({"unknown", "refused"})


@dataclass(frozen=True)
class TaskReport:
    """The state of a live task."""

    #: ``"waiting"``, ``"started"``, ``"retry"``, ``"success"``, ``"failure"`` or ``"revoked"``; ``"unknown"`` if the
    #: server keeps no state any more; ``"refused"`` if the ticket is invalid; None before the first message.
    state: str | None = None
    done: float = 0
    total: float | None = None
    #: The text of the last progress report.
    text: str = ""
    #: ``total``, ``done`` and ``failed`` of a canvas of several tasks.
    parts: Mapping[str, int] | None = None
    result: Any = None
    #: Whether the result is too long for a message, or not for JSON.
    omitted: bool = False
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED


@dataclass(frozen=True)
class TextChange:
    """New text of a stream."""

    stream: str
    #: The new text.
    piece: str
    #: All text of the stream.
    text: str
    #: Whether ``piece`` replaces the text before: the task runs again, or text was lost.
    restarted: bool
    #: Whether the stream is complete.
    ended: bool
