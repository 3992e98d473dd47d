"""The servers that carry clients' messages now: their own, or other ones while those are away."""

from __future__ import annotations

import threading

from channelsq.layers.shards.placement import Placement

#: The most clients that are known to be elsewhere than on their own server; the oldest are dropped.
MOST_MOVED = 100_000


class Homes:
    """The servers of clients, as this process has seen them.

    A client's interface server decides where its messages go.  A worker answers on the server that the client's last
    message came from, so that the answer and the acknowledgement are one write.

    Args:
        placement: the servers of names.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._moved: dict[str, int] = {}
        self._lock = threading.Lock()

    def seen(self, client: str, place: int) -> None:
        """Record that a message of a client, named by its reply channel, came from the server at ``place``."""
        if place == self._placement.first(client):
            if self._moved:
                self._moved.pop(client, None)
        elif self._moved.get(client) != place:
            with self._lock:
                while len(self._moved) >= MOST_MOVED:
                    self._moved.pop(next(iter(self._moved)), None)
                self._moved[client] = place

    def order(self, client: str) -> tuple[int, ...]:
        """Return the places of the servers to try for a client, the best first."""
        order = self._placement.order(client)
        moved = self._moved.get(client) if self._moved else None
        return order if moved is None else (moved, *(place for place in order if place != moved))
