"""The text of a stream of a live task, joined from the pieces that come; without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The most pieces of a stream that wait for the text before them.
_MOST_AHEAD = 100


def _units(text: str) -> int:
    """Return the length as JavaScript counts it, in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _after(text: str, count: int) -> str:
    """Return the text after a number of UTF-16 units."""
    return text.encode("utf-16-le", "surrogatepass")[2 * count :].decode("utf-16-le", "surrogatepass")


class StreamText:
    """The text of a stream, joined from its pieces; places count UTF-16 units from the stream's beginning."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        #: The place after the gap that was the reason for the last request.
        self.asked = -1
        #: Whether the text before the first piece may be requested.
        self.is_partial = False
        self._run: str | None = None
        self._start = 0
        self._length = 0
        self._end = -1
        self._ahead: list[tuple[int, str]] = []

    @property
    def gap(self) -> int:
        """The place after a gap: of a piece that cannot be joined yet, or of the end; -1 if there is no gap."""
        if self._ahead:
            return self._ahead[0][0]
        return -1 if self.ended else self._end

    def take(self, payload: Mapping[str, Any]) -> tuple[str, bool, bool]:
        """Take a piece or the end; return the new text, whether it replaces the old, and whether anything changed."""
        run, at, is_begin = payload["run"], int(payload["at"]), bool(payload.get("begin"))
        restarted = is_begin or run != self._run
        if run != self._run:
            self._ahead, self._end, self.asked = [], -1, -1
        elif restarted and self.text:
            self._ahead.append((self._start, self.text))  # it may reach further than the new beginning
        if restarted:
            self._run, self._start, self._length, self.text, self.ended = run, at, at, "", False
            self.is_partial = at > 0 and not is_begin
        if payload.get("end"):
            self._end = at
        else:
            self._ahead.append((at, str(payload.get("piece", ""))))
        return self._join(restarted)

    def skip(self) -> tuple[str, bool, bool]:
        """Go on after the gap, because its text is not kept any more; return as :meth:`take`."""
        if not self._ahead:
            self._end = self._length
            return self._join(False)
        self._start = self._length = self._ahead[0][0]
        self.text = ""
        return self._join(True)

    def _join(self, restarted: bool) -> tuple[str, bool, bool]:
        self._ahead.sort(key=lambda each: each[0])
        added = []
        while self._ahead and self._ahead[0][0] <= self._length:
            at, piece = self._ahead.pop(0)
            more = _after(piece, self._length - at)
            added.append(more)
            self._length += _units(more)
        del self._ahead[_MOST_AHEAD:]
        new = "".join(added)
        self.text += new
        ends = not self.ended and self._end == self._length
        self.ended = self.ended or ends
        return new, restarted, restarted or bool(new) or ends
