"""The state of a live task, as a value: how it changes, and its form for pages.  No I/O.

A live task may be a canvas of several Celery tasks, its *parts*.  They are numbered when it is started, so that a part
which runs again counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

WAITING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED = "waiting", "started", "retry", "success", "failure", "revoked"

#: The states that end a live task.
ENDED = frozenset({SUCCESS, FAILURE, REVOKED})

#: Characters of a progress text, and of an error's message.
MOST_TEXT = 500

#: Parts whose own progress counts while they run; the others count when they are done.
_MOST_RUNNING = 100

#: Streams of a live task.
MOST_STREAMS = 20


def count_of(bits: int) -> int:
    """Return the number of parts in a set of parts."""
    return bits.bit_count()


@dataclass
class JobState:
    """The state of a live task."""

    #: The number of its parts; 1 for a single task.
    parts: int = 1
    #: Whether its parts run beside each other without a common end: it ends with the last of them.
    is_group: bool = False
    #: Counts the changes, so that pages recognise an older message.
    number: int = 0
    state: str = WAITING
    #: Sets of parts, as bits.
    succeeded: int = 0
    failed: int = 0
    #: The progress of running parts: the number of the part, what is done, and the total or None.
    running: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    text: str = ""
    result: Any = None
    #: Whether the result could not be put into a message.
    is_omitted: bool = False
    error: str = ""
    #: Whether pages of htmx follow it, which get HTML.
    is_html: bool = False
    #: The run that writes each stream, and the stream's length when it has ended, else None.
    streams: dict[str, tuple[str, int | None]] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED

    # -- changes: each returns whether anything has changed

    def begin(self, part: int | None) -> bool:
        """Record that a part has begun, perhaps again."""
        if self.has_ended:
            return False
        if part is not None:
            self.running.pop(str(part), None)
        if self.state == STARTED and self.parts > 1:
            return False
        return self._changed(STARTED)

    def progress(self, part: int | None, done: float, total: float | None, text: str) -> bool:
        """Record how far a part is; a task that a part has called reports for nobody but the text."""
        if self.has_ended:
            return False
        if part is not None and (str(part) in self.running or len(self.running) < _MOST_RUNNING):
            self.running[str(part)] = done, total
        self.text = text[:MOST_TEXT]
        return self._changed(STARTED)

    def retry(self, part: int | None) -> bool:
        """Record that a part is tried again later."""
        if self.has_ended or part is None:
            return False
        self.running.pop(str(part), None)
        return self._changed(RETRY if self.parts == 1 else self.state)

    def succeed(self, part: int | None, *, is_last: bool, result: Any, is_omitted: bool = False) -> bool:
        """Record that a part has succeeded.

        Args:
            part: its number.
            is_last: whether its result is that of the whole.
            result: the result, for JSON.
            is_omitted: whether the result is not for JSON, or too long.
        """
        if self.has_ended or part is None or self.succeeded >> part & 1:
            return False
        self.succeeded |= 1 << part
        self.failed &= ~(1 << part)
        self.running.pop(str(part), None)
        if is_last:
            # All that it depends on has succeeded, although Celery starts a part before the one before reports its end.
            self.succeeded = (1 << self.parts) - 1
            self.result, self.is_omitted = result, is_omitted
            return self._changed(SUCCESS)
        return self._changed(self._state_of_group())

    def fail(self, part: int | None, dependents: Iterable[int], *, is_last: bool, error: str) -> bool:
        """Record that a part has failed, and that its dependents will never run.

        Args:
            part: its number.
            dependents: the numbers of the parts that would have followed.
            is_last: whether the part, or one of its dependents, has the result of the whole.
            error: a message for the page.
        """
        if self.has_ended or part is None:
            return False
        for each in (part, *dependents):
            self.failed |= 1 << each
            self.running.pop(str(each), None)
        self.error = error[:MOST_TEXT]
        return self._changed(FAILURE if is_last or not self.is_group else self._state_of_group())

    def revoke(self) -> bool:
        """Record that the task is revoked."""
        return not self.has_ended and self._changed(REVOKED)

    def open_stream(self, name: str, run: str) -> bool:
        """Record that a run writes a stream; an earlier run's text is void."""
        if self.has_ended or (name not in self.streams and len(self.streams) >= MOST_STREAMS):
            return False
        self.streams[name] = run, None
        return self._changed(STARTED)

    def end_stream(self, name: str, run: str, length: int) -> bool:
        """Record the length of a stream that has ended."""
        if self.streams.get(name) != (run, None):
            return False
        self.streams[name] = run, length
        return self._changed(self.state)

    def follow_in_html(self) -> bool:
        """Record that a page of htmx follows the task."""
        if self.is_html:
            return False
        self.is_html = True
        return True

    def _changed(self, state: str) -> bool:
        self.number += 1
        self.state = state
        if state in ENDED:
            self.running.clear()
        return True

    def _state_of_group(self) -> str:
        if not self.is_group or count_of(self.succeeded | self.failed) < self.parts:
            return STARTED
        return FAILURE if self.failed else SUCCESS

    # -- forms

    def position(self) -> tuple[float, float | None]:
        """Return what is done, and the total; None if that is unknown."""
        if self.parts == 1:
            done, total = next(iter(self.running.values()), (0.0, None))
            if self.state == SUCCESS:
                return (1.0, 1.0)
            return done, total
        done = float(count_of(self.succeeded))
        for each, total in self.running.values():
            done += min(1.0, max(0.0, each / total)) if total else 0.0
        return round(done, 3), float(self.parts)

    def payload(self, job: str) -> dict[str, Any]:
        """Return the message for pages."""
        done, total = self.position()
        payload: dict[str, Any] = {"id": job, "n": self.number, "state": self.state, "done": done, "total": total}
        if self.text:
            payload["text"] = self.text
        if self.parts > 1:
            payload["parts"] = {"total": self.parts, "done": count_of(self.succeeded), "failed": count_of(self.failed)}
        if self.state == SUCCESS and not self.is_group:
            payload["result"] = self.result
            if self.is_omitted:
                payload["omitted"] = True
        if self.error:
            payload["error"] = self.error
        return payload

    def dump(self) -> bytes:
        """Return the state as bytes, for :meth:`load`."""
        kept = {**asdict(self), "succeeded": hex(self.succeeded), "failed": hex(self.failed)}
        return json.dumps(kept, separators=(",", ":")).encode()

    @classmethod
    def load(cls, data: bytes) -> JobState:
        """Return the state of :meth:`dump`."""
        kept: dict[str, Any] = json.loads(data)
        for name in ("succeeded", "failed"):
            kept[name] = int(kept[name], 16)
        for name in ("running", "streams"):
            kept[name] = {key: tuple(value) for key, value in kept[name].items()}
        return cls(**kept)
