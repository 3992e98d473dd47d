"""The version of the wire: of all forms that interface servers, workers, the broker and Redis exchange.

Processes of two releases run side by side during a rolling deploy, so each release keeps four rules
(docs/reference/wire.md):

* A form without a mark has version 1.
* A reader ignores unknown fields, and gives a missing optional field its default.
* A release with a new form only reads it, and increments :data:`WIRE_VERSION`; the next release writes it.  So
  processes whose versions are at most one apart understand each other.
* A form that older processes cannot read carries a mark with the version that its reader needs.  A process that is too
  old for it logs this, and leaves the message to newer processes or keeps it as a dead letter.

The mark is in the outermost form, and forms of version 1 have none.  In the compact form of
:mod:`channelsq.transport.payloads` it is an int before the list; in Kombu's messages the header :data:`NEEDS_HEADER`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from channelsq.version import __version__

logger = logging.getLogger("channelsq.wire")

#: The version of the wire that this process reads.
WIRE_VERSION = 1

#: The header of a Kombu message with the version that a reader needs; absent for version 1.
NEEDS_HEADER = "channelsq_needs"

#: Seconds between two log lines about messages of one queue that need a newer process.
_LOG_EVERY = 60.0

#: The number of queues remembered for that.
_MOST_QUEUES = 1000


class NewerWire(ValueError):
    """A message has a form that this process is too old to read.

    Args:
        needs: the version of the wire that its reader needs.
    """

    def __init__(self, needs: int) -> None:
        self.needs = needs
        super().__init__(
            f"it needs wire version {needs}, and channelsq {__version__} in this process reads version {WIRE_VERSION}: "
            "update this process"
        )


def check_headers(headers: Mapping[str, Any] | None) -> None:
    """Raise NewerWire if the headers of a Kombu message say that it needs a newer reader."""
    needs = (headers or {}).get(NEEDS_HEADER)
    if type(needs) is int and needs > WIRE_VERSION:
        raise NewerWire(needs)


# -- log lines about messages -------------------------------------------------------------------


class Teller:
    """Logs messages that need a newer process: the first of each queue, then at most one a minute.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._count = 0

    def tell(self, queue: str, error: NewerWire, outcome: str) -> None:
        """Log that a message of ``queue`` could not be read.

        Args:
            queue: its name.
            error: the error with the versions.
            outcome: the fate of the message, such as ``"is kept as a dead letter"``.
        """
        now = time.monotonic()
        with self._lock:
            self._count += 1
            if now - self._logged_at.get(queue, float("-inf")) < _LOG_EVERY:
                return
            if len(self._logged_at) >= _MOST_QUEUES:
                self._logged_at.clear()
            self._logged_at[queue] = now
            count = self._count
        logger.error(
            "queue %s: a message %s: %s (%d so far)", queue, outcome, error, count,
            extra={"action": "newer_wire", "queue": queue},
        )  # fmt: skip


#: The teller of this process.
teller = Teller()


# -- announcements of processes -----------------------------------------------------------------


class Announced(NamedTuple):
    """The announcement of a process of the site."""

    #: ``"interface"`` or ``"worker"``.
    kind: str
    name: str
    wire: int
    #: channelsq's version; empty for a process from before versions were announced.
    version: str
    #: The host and process id; empty and 0 if not announced.
    host: str = ""
    pid: int = 0
    #: The channels of the layer that it reads; None if not announced.
    channels: tuple[str, ...] | None = None
    #: Of a worker: the place where its consumers run, in words.
    runs: str = ""
    #: Of a worker: the number of its streaming responses, and their limit; None if not announced.
    streaming: int | None = None
    streaming_limit: int | None = None
    #: Of an interface server: its protocol; empty for HTTP and WebSockets.
    protocol: str = ""

    @property
    def is_understood(self) -> bool:
        """True if this process and that one read each other's messages."""
        return abs(self.wire - WIRE_VERSION) <= 1

    def __str__(self) -> str:
        return f"{self.kind} {self.name} (channelsq {self.version or 'unknown'}, wire version {self.wire})"


def announcement(more: Mapping[str, Any] | None = None) -> str:
    """Return the announcement of this process.

    Args:
        more: further values for operators; they must be JSON.
    """
    place = {"host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps({"wire": WIRE_VERSION, "channelsq": __version__, **place, **(more or {})})


def read_announcement(kind: str, name: str, text: str) -> Announced:
    """Return the announcement in ``text``, made by :func:`announcement`; any other text counts as version 1."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    wire, pid, channels = found.get("wire"), found.get("pid"), found.get("channels")
    version, host, runs = (_str(found.get(key)) for key in ("channelsq", "host", "runs"))
    return Announced(
        kind,
        name,
        wire if type(wire) is int else 1,
        version,
        host,
        pid if type(pid) is int else 0,
        tuple(map(str, channels)) if isinstance(channels, list) else None,
        runs,
        _count(found.get("streaming")),
        _count(found.get("streaming_limit")),
        _str(found.get("protocol")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def log_others(others: Iterable[Announced], site: str) -> None:
    """Log the processes of a site that run another version than this starting one.

    Args:
        others: the live processes.
        site: the place of their announcements.
    """
    others = list(others)
    strange = [str(each) for each in others if not each.is_understood]
    if strange:
        logger.error(
            "%s: this process (channelsq %s, wire version %d) does not understand: %s; update one release at a time",
            site, __version__, WIRE_VERSION, ", ".join(strange),
            extra={"action": "wire_not_understood"},
        )  # fmt: skip
    mixed = [str(each) for each in others if each.is_understood and each.version != __version__]
    if mixed:
        logger.info(
            "%s: a mixed deploy: this process has channelsq %s, wire version %d; others: %s",
            site, __version__, WIRE_VERSION, ", ".join(mixed),
            extra={"action": "mixed_deploy"},
        )  # fmt: skip
