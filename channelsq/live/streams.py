"""The text of a live task, as it is written: in pieces to the audience, and in chunks to the task's record.

A record has a field ``text.<stream>.<number>`` for each chunk: the run that wrote it, the chunk's place in the text,
and the text, with a line feed between them.  Places and lengths count UTF-16 code units, as JavaScript does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from channelsq.live import reporter

if TYPE_CHECKING:
    from channelsq.conf import LiveSettings
    from channelsq.live.jobs import Job

#: Characters of a chunk; the last one is written again with every piece.
CHUNK = 4096

#: The most characters of one message.
PIECE = 32_768

_PREFIX = "text."


class Kept(NamedTuple):
    """The text of a stream that is kept."""

    #: The place of its beginning.
    at: int
    text: str


def units(text: str) -> int:
    """Return the length of a text in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def field_of(name: str, number: int) -> str:
    """Return the name of the field of a chunk."""
    return f"{_PREFIX}{name}.{number}"


def kept_text(fields: Mapping[str, bytes], name: str, run: str) -> Kept:
    """Return the kept text of a stream, from its last gap on.

    Args:
        fields: of the record.
        name: of the stream.
        run: the run whose text it is; chunks of others are left out.
    """
    prefix = f"{_PREFIX}{name}."
    numbers = sorted(int(field[len(prefix) :]) for field in fields if field.startswith(prefix))
    begin = end = 0
    texts: list[str] = []
    for number in numbers:
        head, _, rest = fields[field_of(name, number)].decode().partition("\n")
        if head == run:
            place, _, text = rest.partition("\n")
            if int(place) != end:
                begin = end = int(place)
                texts.clear()
            texts.append(text)
            end += units(text)
    return Kept(begin, "".join(texts))


class StreamBuffer:
    """The text of a stream on its way; safe to call from any thread.

    Args:
        job: the live task.
        name: of the stream.
        run: the id of the run that writes.
        settings: the limits.
    """

    def __init__(self, job: Job, name: str, run: str, settings: LiveSettings) -> None:
        self.name = name
        self._job = job
        self._run = run
        self._settings = settings
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._waiting: list[str] = []
        self._waiting_size = 0
        #: The place after all that was sent, and of what was dropped as the layer was away.
        self._at = 0
        self._skipped = 0
        self._chunk = ""
        self._chunk_at = 0
        self._chunk_number = 0
        self._next = 0.0
        self._is_open = False
        self._is_complete = False
        self._is_ended = False

    def add(self, text: str) -> None:
        """Add text; the oldest text that waits is dropped when there is more than is kept."""
        with self._lock:
            self._waiting.append(text)
            self._waiting_size += len(text)
            while self._waiting_size > self._settings.stream_size and len(self._waiting) > 1:
                dropped = self._waiting.pop(0)
                self._waiting_size -= len(dropped)
                self._skipped += units(dropped)
            due = self._next
        reporter.wake(self, due)

    def flush(self) -> float | None:
        """Send the waiting text; return the seconds until the next call, None if nothing waits.

        Raises:
            BrokerUnavailable: the text still waits.
        """
        with self._sending:
            with self._lock:
                text, skipped = "".join(self._waiting), self._skipped
                self._waiting, self._waiting_size, self._skipped = [], 0, 0
            if not text and (self._is_ended or not self._is_complete):
                return None
            try:
                if text:
                    self._send(text, skipped)
                if self._is_complete and not self._waiting:
                    self._send_end()
            except BaseException:
                with self._lock:
                    if text:
                        self._waiting.insert(0, text)
                        self._waiting_size += len(text)
                        self._skipped += skipped
                raise
            with self._lock:
                self._next = time.monotonic() + self._settings.stream_every
                return self._settings.stream_every if self._waiting else None

    def _send(self, text: str, skipped: int) -> None:
        self._open()
        at = self._at + skipped
        fields, last = self._chunks(text, at if skipped else None)
        self._job.write(fields)
        for start in range(0, len(text), PIECE):
            piece = text[start : start + PIECE]
            self._job.tell(self._payload(at, {"piece": piece}), is_droppable=True)
            at += units(piece)
        self._at = at
        self._chunk, self._chunk_at, self._chunk_number = last

    def _chunks(self, text: str, begin_at: int | None) -> tuple[dict[str, bytes], tuple[str, int, int]]:
        """Return the fields to write, and the chunk to continue: its text, place and number."""
        chunk, at, number = self._chunk, self._chunk_at, self._chunk_number
        if begin_at is not None:  # what was kept before ends before a gap
            chunk, at, number = "", begin_at, number + 1
        chunk += text
        fields: dict[str, bytes] = {}
        most = max(1, self._settings.stream_size // CHUNK)
        while True:
            part = chunk[:CHUNK]
            fields[field_of(self.name, number)] = f"{self._run}\n{at}\n{part}".encode()
            if number >= most:
                fields[field_of(self.name, number - most)] = b""
            if len(chunk) <= CHUNK:
                return fields, (chunk, at, number)
            chunk, at, number = chunk[CHUNK:], at + units(part), number + 1

    def _open(self) -> None:
        if not self._is_open:
            self._job.change(lambda state: state.open_stream(self.name, self._run))
            self._is_open = True

    def _send_end(self) -> None:
        self._open()
        self._job.change(lambda state: state.end_stream(self.name, self._run, self._at))
        self._job.tell(self._payload(self._at, {"end": True}))
        self._is_ended = True

    def complete(self) -> None:
        """Send the stream's end after its text."""
        with self._lock:
            self._is_complete = True
        reporter.wake(self, time.monotonic())

    def _payload(self, at: int, more: dict[str, Any]) -> dict[str, Any]:
        return {"id": self._job.id, "stream": self.name, "run": self._run, "at": at, **more}
