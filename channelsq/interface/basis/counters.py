"""The counters of one interface server, by name."""

from __future__ import annotations

from collections import Counter


class Counters:
    """The events so far: ``stats.count("websocket.slow_clients")``, then ``stats["websocket.slow_clients"]``.

    Events are counted in the event loop, except for those that :mod:`channelsq.interface.link.replies` counts under its
    lock.
    """

    __slots__ = (
        "_counts", "cut_off", "http_received_bytes", "http_sent_bytes", "received", "received_bytes",
        "refused", "sent", "sent_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        #: Responses of this server itself, by protocol, status and reason.
        self.refused: Counter[tuple[str, int, str]] = Counter()
        #: HTTP responses that had begun and were not completed, by reason.
        self.cut_off: Counter[str] = Counter()
        #: Messages from and to WebSockets, and bytes of frames; plain attributes, as they change with each message.
        self.received = 0
        self.received_bytes = 0
        self.sent = 0
        self.sent_bytes = 0
        #: Bytes read from HTTP connections, and bytes of response bodies that were sent.
        self.http_received_bytes = 0
        self.http_sent_bytes = 0

    def count(self, name: str, by: int = 1) -> None:
        """Add ``by`` to the counter ``name``."""
        self._counts[name] += by

    def refuse(self, protocol: str, status: int, reason: str) -> None:
        """Count a response of this server itself; also as ``http.refused.413`` and ``http.body_too_large``."""
        self.refused[protocol, status, reason] += 1

    def cut(self, reason: str) -> None:
        """Count an HTTP response that is cut off; also as ``http.response_stalled``."""
        self.cut_off[reason] += 1

    def __getitem__(self, name: str) -> int:
        if name == "websocket.received":
            return self.received
        refused = sum(
            number
            for (protocol, status, reason), number in self.refused.items()
            if name in (f"{protocol}.refused.{status}", f"{protocol}.{reason}")
        )
        return self._counts[name] + refused + sum(n for why, n in self.cut_off.items() if name == f"http.{why}")

    def as_dict(self) -> dict[str, int]:
        """Return every counter without labels that is not 0."""
        return dict(self._counts)
