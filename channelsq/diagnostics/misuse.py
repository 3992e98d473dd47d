"""Log lines about sends and returned values without effect, as in code for Channels 4 or for views.

They are not errors: an application's own channel may carry any message, and a task may return any value.  So each line
of the project's code is logged once in a process.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from types import FrameType, GeneratorType
from typing import Any

from channelsq.diagnostics.causes import is_foreign, short

logger = logging.getLogger("channelsq")

#: The most lines of code that one process reports.
_MOST = 100

#: Channels 4's events to a client, and the message to send instead.
_EVENTS = {
    "websocket.accept": '{"accept": True}',
    "websocket.send": '{"text": …} or {"bytes": …}',
    "websocket.close": '{"close": True} or {"close": 4000}',
    "http.response.start": '{"status": 200, "headers": [], "content": b"…"}',
    "http.response.body": '{"content": b"…", "more_content": False}',
}

#: The replacement for all other types, which in Channels 4 name a method of a consumer.
_HANDLED = '{"text": json.dumps(…)}, as what is sent goes to the clients and to no method of a consumer'

#: Keys of answers; a returned dict with one of these was probably meant as a send.
_ANSWERS = frozenset({"accept", "text", "bytes", "close", "status", "content", "type"})

#: Keys that give a message an effect although it has a ``type``.
_MEANT = frozenset({"accept", "text", "bytes", "close", "content"})


class Reported:
    """The lines of code that were reported.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: set[object] = set()

    def is_new(self, place: object) -> bool:
        """Record a place, and return whether it must be reported."""
        with self._lock:
            if place in self._places or len(self._places) >= _MOST:
                return False
            self._places.add(place)
            return True

    def clear(self) -> None:
        """Forget all places; for tests."""
        with self._lock:
            self._places.clear()


reported = Reported()


def sent_type(what: str, name: str, message: Mapping[str, Any]) -> None:
    """Log that a message to a client or group is one of Channels 4.

    Args:
        what: ``"group"`` or ``"channel"``.
        name: its name.
        message: it has the key ``type``.
    """
    kind = message["type"]
    if not isinstance(kind, str) or (kind not in _EVENTS and not _MEANT.isdisjoint(message)):
        return
    place = _calling_line()
    if reported.is_new((place, kind)):
        logger.warning(
            '%s: a message to the %s %s has {"type": %r}, which is of Channels 4 and does nothing here; send %s '
            "(docs/how-to/begin/porting-from-channels-4.md)",
            place, what, name, kind[:60], _EVENTS.get(kind, _HANDLED),
            extra={"action": "type_sent"},
        )  # fmt: skip


def returned(consumer: str, value: object) -> None:
    """Log that a consumer returned an answer instead of sending it.

    Args:
        consumer: its name.
        value: the returned value; it is not None.
    """
    if isinstance(value, GeneratorType):
        shown, remedy = "a generator", "nothing of it has run: write it without yield"
    elif isinstance(value, Mapping) and not _ANSWERS.isdisjoint(value):
        shown, remedy = "a dict", "it is not sent: send it with message.reply_channel.send(…)"
    elif hasattr(value, "status_code") and hasattr(value, "streaming"):
        shown = "an HttpResponse"
        remedy = (
            "it is not sent: write a Django view, or send AsgiHandler.encode_response(…) (docs/how-to/build/http.md)"
        )
    else:
        return
    if reported.is_new(consumer):
        logger.warning("%s returned %s; %s", consumer, shown, remedy, extra={"action": "answer_returned"})


def _calling_line() -> str:
    """Return the running line of the project's code, such as ``shop/consumers.py, line 12, in receive``."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_foreign(name):
            return f"{short(name)}, line {frame.f_lineno}, in {frame.f_code.co_name}"
        frame = frame.f_back
    return "?"
