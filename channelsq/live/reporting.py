"""The calls of a running task: its reports, and questions about its audience."""

from __future__ import annotations

import math
import re
from types import TracebackType

from channelsq.live.runs import current_run
from channelsq.live.streams import StreamBuffer

_STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Tell the audience how far the running task is; without an audience do nothing.

    It costs the task microseconds: another thread sends the latest report, at most every
    ``CHANNEL_LIVE["progress_every"]`` seconds, and the last one always.

    Args:
        done: how much is done, such as the number of rows.
        total: how much there is to do; None if that is unknown.
        text: a description for people, such as ``"rows"``; 500 characters at most.

    Raises:
        TypeError, ValueError: an argument is of another kind, or is not finite.
        Cancelled: the task was cancelled.
    """
    for name, value in (("done", done), ("total", total)):
        if value is None and name == "total":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"progress() takes a number as {name!r}, not {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"progress() takes a finite number as {name!r}, not {value!r}")
    if not isinstance(text, str):
        raise TypeError(f"progress() takes a str as 'text', not {text!r}")
    run = current_run()
    if run is not None:
        run.progress(done, total, text)


class Stream:
    """A text that the audience reads while the task writes it; use it in a ``with`` block.

    Args:
        name: of the stream.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not _STREAM_NAME.fullmatch(name):
            raise TypeError(f"a stream's name has 1 to 50 letters, digits, - and _, and {name!r} has not")
        self.name = name
        self._run = current_run()
        self._buffer: StreamBuffer | None = None if self._run is None else self._run.stream(name)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A run that fails may be tried again, and then writes the text anew.
        if self._buffer is not None and error is None:
            self._buffer.complete()

    def write(self, text: str) -> int:
        """Add text; the audience gets it in pieces, at most every ``CHANNEL_LIVE["stream_every"]`` seconds.

        Returns:
            The number of characters, as a file's ``write`` does.

        Raises:
            TypeError: ``text`` is not a str.
            Cancelled: the task was cancelled.
        """
        if not isinstance(text, str):
            raise TypeError(f"a stream's write() takes a str, not {type(text).__name__}")
        if self._run is not None and self._buffer is not None and text:
            self._run.check()
            self._buffer.add(_encodable(text))
        return len(text)

    def flush(self) -> None:
        """Do nothing: text is sent soon by itself.  It is there for ``print(file=stream)``."""


def _encodable(text: str) -> str:
    """Return a text without lone surrogates, which have no place in a message."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def stream(name: str = "text") -> Stream:
    """Return a stream of text to the audience of the running task; without an audience it discards the text.

    Args:
        name: letters, digits, ``-`` and ``_``; a task has at most 20 streams.

    Raises:
        TypeError: the name is something else.
    """
    return Stream(name)


def listeners(grace: float = 10.0) -> int:
    """Return the number of sockets in the audience of the running task; 1 for a task without an audience.

    Args:
        grace: seconds for which a listener counts after it has left, as a page that is loaded again comes back.

    Raises:
        Cancelled: the task was cancelled.
        BrokerUnavailable: the layer does not answer.
    """
    run = current_run()
    return 1 if run is None else run.listeners(grace)
