"""Celery's events about consumers, on their way to the dispatcher of the worker."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from channelsq import conf

#: Events that wait for the dispatcher at most; the oldest are dropped, as while Celery's broker is away.
MOST = 10_000


class Relay:
    """Hands events of other threads, or processes, to the worker's event loop: its connection is not theirs.

    Args:
        worker: Celery's.
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
        """Whether somebody asked for events of tasks, and the project for those of consumers."""
        dispatcher = self._dispatcher
        if dispatcher is None or not dispatcher.enabled or (dispatcher.groups and "task" not in dispatcher.groups):
            return False
        return conf.sends_events()

    def of(self, identity: str) -> Relay | None:
        """Return where the events of a message go; None for nowhere."""
        return self if conf.sends_events(identity) else None

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event, as Celery's dispatcher does."""
        self._waiting.append((kind, {"timestamp": time.time(), **fields}))
        if not self._called:
            self._called = True
            self._worker.consumer.call_soon(self._flush)

    def _flush(self) -> None:
        """In the event loop: send what waits."""
        self._called = False
        dispatcher = self._dispatcher
        while self._waiting and dispatcher is not None:
            kind, fields = self._waiting.popleft()
            dispatcher.send(kind, **fields)
