"""A queue of Celery's events about consumers for the worker's event dispatcher."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from channelsq import conf

#: The most events that wait for the dispatcher, for example while Celery's broker is down; then the oldest are dropped.
MOST = 10_000


class Relay:
    """Hands events of other threads or processes to the worker's event loop, which owns the connection.

    Args:
        worker: Celery's worker.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MOST)
        self._called = False

    @property
    def _dispatcher(self) -> Any:
        return getattr(getattr(self._worker, "consumer", None), "event_dispatcher", None)

    @property
    def enabled(self) -> bool:
        """True if task events are enabled in Celery, and events of consumers in the settings."""
        dispatcher = self._dispatcher
        if dispatcher is None or not dispatcher.enabled or (dispatcher.groups and "task" not in dispatcher.groups):
            return False
        return conf.sends_events()

    def of(self, identity: str) -> Relay | None:
        """Return the relay for the events of a message; None if they are not sent."""
        return self if conf.sends_events(identity) else None

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event, as Celery's dispatcher does."""
        self._waiting.append((kind, {"timestamp": time.time(), **fields}))
        if not self._called:
            self._called = True
            self._worker.consumer.call_soon(self._flush)

    def _flush(self) -> None:
        """Send the waiting events, in the event loop."""
        self._called = False
        dispatcher = self._dispatcher
        while self._waiting and dispatcher is not None:
            kind, fields = self._waiting.popleft()
            dispatcher.send(kind, **fields)
